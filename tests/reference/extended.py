"""The likelihood of a linear mixed model in arithmetic of eighty digits, row by row.

Nothing here is shared with the package: V of all rows is formed, factorised and solved, as the
formulas say. The data are taken as the doubles that they are.
"""

import mpmath
import numpy as np

DIGITS = 80
# Steps of the differences in the logarithms, and changes below which Newton has arrived.
STEP = mpmath.mpf(10) ** -12
ARRIVED = mpmath.mpf(10) ** -14


def _numbers(values):
    """Nested lists of exact numbers."""
    values = np.asarray(values)
    if values.ndim == 0:
        return mpmath.mpf(float(values))
    return [_numbers(own) for own in values]


def _cholesky(matrix):
    """The lower factor, row by row."""
    lower = []
    for i, row in enumerate(matrix):
        own = []
        for j in range(i):
            other = lower[j]
            own.append((row[j] - mpmath.fdot(own, other[:j])) / other[j])
        own.append(mpmath.sqrt(row[i] - mpmath.fdot(own, own)))
        lower.append(own)
    return lower


def _solve(lower, column):
    """The solution of ``L x = column``."""
    found = []
    for row, value in zip(lower, column, strict=True):
        found.append((value - mpmath.fdot(row[: len(found)], found)) / row[-1])
    return found


class Rows:
    """Rows of a model.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Fixed columns, the constant among them.
    y : ndarray of shape (n,)
    factors : list of (ndarray of shape (n, q), ndarray of shape (n,))
        Random columns and codes of the levels of every factor.
    weights : ndarray of shape (n,), optional
    reml : bool
    """

    def __init__(self, X, y, factors, weights=None, reml=True):
        self.X, self.y = _numbers(X), _numbers(y)
        self.weights = _numbers(np.ones(len(y)) if weights is None else weights)
        self.factors = [(_numbers(Z), np.asarray(codes)) for Z, codes in factors]
        self.reml = reml

    def _covariance(self, roots):
        """The lower triangle of V, relative to the noise, from Lambda of every factor."""
        n = len(self.y)
        V = [[mpmath.mpf(0)] * (i + 1) for i in range(n)]
        for (Z, codes), root in zip(self.factors, roots, strict=True):
            columns = list(zip(*root, strict=True))
            turned = [[mpmath.fdot(row, column) for column in columns] for row in Z]
            for i in range(n):
                for j in range(i + 1):
                    if codes[i] == codes[j]:
                        V[i][j] += mpmath.fdot(turned[i], turned[j])
        for i, weight in enumerate(self.weights):
            V[i][i] += 1 / weight
        return V

    def criterion(self, roots):
        """Minus twice the profiled log-likelihood, and the noise variance.

        Parameters
        ----------
        roots : list of ndarray of shape (q, q), or nested lists of numbers
            Lambda of every factor, relative to the noise.
        """
        with mpmath.workdps(DIGITS):
            roots = [[[mpmath.mpf(value) for value in row] for row in root] for root in roots]
            return self._criterion(roots)

    def _criterion(self, roots):
        lower = _cholesky(self._covariance(roots))
        log_det = 2 * mpmath.fsum(mpmath.log(row[-1]) for row in lower)
        columns = [*zip(*self.X, strict=True), self.y]
        solved = [_solve(lower, column) for column in columns]
        cross = [[mpmath.fdot(a, b) for b in solved[: i + 1]] for i, a in enumerate(solved)]
        p, n = len(columns) - 1, len(self.y)
        root = _cholesky(cross)
        residual = root[p][p] ** 2
        df = n - p if self.reml else n
        noise = residual / df
        value = log_det + df * (1 + mpmath.log(2 * mpmath.pi * noise))
        if self.reml:
            value += 2 * mpmath.fsum(mpmath.log(root[j][j]) for j in range(p))
        return value, noise

    def optimum(self, deviations):
        """The nearest optimum of a model with one variance for each random column.

        Parameters
        ----------
        deviations : list of float
            Standard deviations relative to that of the noise, to start from; all factors have one
            random column, and a zero stays zero.

        Returns
        -------
        criterion, noise_variance : mpf
        variances : list of mpf
        """
        free = [k for k, own in enumerate(deviations) if own > 0]
        with mpmath.workdps(DIGITS):
            logs = [mpmath.log(mpmath.mpf(deviations[k])) for k in free]

            def at(moved):
                own = [mpmath.mpf(0)] * len(deviations)
                for k, value in zip(free, moved, strict=True):
                    own[k] = mpmath.exp(value)
                return self._criterion([[[value]] for value in own])

            def value(*moves):
                moved = list(logs)
                for place, sign in moves:
                    moved[place] += sign * STEP
                return at(moved)[0]

            for _ in range(30):
                size = len(free)
                if not size:
                    break
                here = value()
                up = [value((j, 1)) for j in range(size)]
                down = [value((j, -1)) for j in range(size)]
                slope = mpmath.matrix([(u - d) / (2 * STEP) for u, d in zip(up, down, strict=True)])
                bend = mpmath.matrix(size, size)
                for i in range(size):
                    bend[i, i] = (up[i] - 2 * here + down[i]) / STEP**2
                    for j in range(i):
                        corners = value((i, 1), (j, 1)) - value((i, 1), (j, -1))
                        corners -= value((i, -1), (j, 1)) - value((i, -1), (j, -1))
                        bend[i, j] = bend[j, i] = corners / (4 * STEP**2)
                change = mpmath.lu_solve(bend, -slope)
                logs = [own + step for own, step in zip(logs, change, strict=True)]
                if max(abs(step) for step in change) < ARRIVED:
                    break
            found, noise = at(logs)
            variances = [mpmath.mpf(0)] * len(deviations)
            for k, own in zip(free, logs, strict=True):
                variances[k] = noise * mpmath.exp(2 * own)
            return found, noise, variances
