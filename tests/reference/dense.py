"""Linear mixed models of several factors, densely, from the rows: slow, plain, independent.

The model is ``y = X beta + sum_k Z_k b_k + e`` with ``var(b_k) = s2 D_k`` for every level of factor
k, independently, and ``var(e) = s2 / w``. Everything follows from the n x n matrix

    V = diag(1 / w) + sum_k Z_k (D_k x I) Z_k'

by textbook formulas, in the columns given. ``Z_k`` has the columns of all levels: effect by effect,
then level by level.
"""

from __future__ import annotations

import numpy as np


def spread(columns, codes, n_levels):
    """The columns z (n, q) of a factor by level: (n, q m); nothing where the code is -1."""
    n, q = columns.shape
    wide = np.zeros((n, q, n_levels))
    known = np.flatnonzero(codes >= 0)
    wide[known, :, codes[known]] = columns[known]
    return wide.reshape(n, q * n_levels)


def root_of(matrix):
    """A square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0.0))


class Dense:
    """The rows of a model.

    Parameters
    ----------
    X : ndarray of shape (n, p)
    y : ndarray of shape (n,)
    columns : list of ndarray of shape (n, q_k)
        Columns of the random effects of every factor.
    codes : list of ndarray of shape (n,), int
    n_levels : list of int
    weights : ndarray of shape (n,), optional
    reml : bool
    """

    def __init__(self, X, y, columns, codes, n_levels, weights=None, reml=True):
        self.X, self.y, self.reml = X, y, reml
        self.weights = np.ones(len(y)) if weights is None else weights
        self.shapes = [(z.shape[1], m) for z, m in zip(columns, n_levels, strict=True)]
        self.wide = [spread(*own) for own in zip(columns, codes, n_levels, strict=True)]

    def at(self, covariances):
        """Everything at the D_k given, relative to the noise variance."""
        return DenseSolution(self, covariances)


class DenseSolution:
    """Likelihood, estimates and derivatives by D; all covariances relative to the noise."""

    def __init__(self, rows, covariances):
        self.rows, self.covariances = rows, covariances
        X, y = rows.X, rows.y
        n, p = X.shape
        V = np.diag(1.0 / rows.weights)
        for wide, covariance, (_, m) in zip(rows.wide, covariances, rows.shapes, strict=True):
            V += wide @ np.kron(covariance, np.eye(m)) @ wide.T
        inverse = np.linalg.inv(V)
        H = X.T @ inverse @ X
        self.coef_covariance = np.linalg.inv(H)
        self.coef = self.coef_covariance @ (X.T @ inverse @ y)
        self.df = n - p if rows.reml else n
        residual = y - X @ self.coef
        self.s2 = float(residual @ inverse @ residual) / self.df
        self.objective = np.linalg.slogdet(V)[1] + self.df * (1.0 + np.log(2.0 * np.pi * self.s2))
        if rows.reml:
            self.objective += np.linalg.slogdet(H)[1]
        self.inverse = inverse
        self.P = inverse - inverse @ X @ self.coef_covariance @ X.T @ inverse
        self.u = [
            (wide.T @ self.P @ y).reshape(shape)
            for wide, shape in zip(rows.wide, rows.shapes, strict=True)
        ]
        self.blups = [covariance @ u for covariance, u in zip(covariances, self.u, strict=True)]

    def _middle(self):
        """The matrix of the traces: that of the restricted likelihood, or V^-1."""
        return self.P if self.rows.reml else self.inverse

    def gradients(self):
        """Derivatives of the objective by the D_k."""
        found = []
        for wide, u, (q, m) in zip(self.rows.wide, self.u, self.rows.shapes, strict=True):
            products = (wide.T @ self._middle() @ wide).reshape(q, m, q, m)
            found.append(np.einsum("aibi->ab", products) - u @ u.T / self.s2)
        return found

    def _directions(self):
        """``Z_k (e_a e_b' x I) Z_k'`` for all entries of all D_k, and that times ``P y``."""
        pairs = []
        for wide, (q, m) in zip(self.rows.wide, self.rows.shapes, strict=True):
            parts = wide.reshape(len(wide), q, m)
            pairs += [parts[:, a] @ parts[:, b].T for a in range(q) for b in range(q)]
        return pairs, np.column_stack([pair @ self.P @ self.rows.y for pair in pairs])

    def information(self):
        """Observed, expected and average information by the entries of the D_k.

        Twice the negative log-likelihood, profiled over the noise variance: all three have the
        same last term for it. Directions count only in symmetric sums.
        """
        pairs, turned = self._directions()
        squares = turned.T @ self.P @ turned / self.s2
        middle = [self._middle() @ pair for pair in pairs]
        traces = np.array([[np.vdot(left.T, right) for right in middle] for left in middle])
        g = np.concatenate([(u @ u.T).ravel() for u in self.u]) / self.s2
        profile = np.outer(g, g) / self.df
        return 2.0 * squares - traces - profile, traces - profile, squares - profile

    def effects_covariance(self):
        """Covariance of all effects given the response, the coefficients known: (M, M)."""
        Z, prior = np.hstack(self.rows.wide), self._prior()
        return prior - prior @ Z.T @ self.inverse @ Z @ prior

    def _prior(self):
        parts = [
            np.kron(covariance, np.eye(m))
            for covariance, (_, m) in zip(self.covariances, self.rows.shapes, strict=True)
        ]
        size = sum(len(part) for part in parts)
        prior = np.zeros((size, size))
        start = 0
        for part in parts:
            prior[start : start + len(part), start : start + len(part)] = part
            start += len(part)
        return prior

    def predict(self, X, columns, codes):
        """Means and variances (in units of y) of new observations of weight one.

        By Henderson's mixed-model equations for beta and v with ``b = Lambda v``: their inverse is
        the covariance of the errors of all estimates and predictions together. A level of code -1
        is new.
        """
        rows = self.rows
        roots = [
            np.kron(root_of(covariance), np.eye(m))
            for covariance, (_, m) in zip(self.covariances, rows.shapes, strict=True)
        ]
        turned = [wide @ root for wide, root in zip(rows.wide, roots, strict=True)]
        design = np.hstack([rows.X, *turned])
        p, size = rows.X.shape[1], design.shape[1]
        root_weights = np.sqrt(rows.weights)
        # The equations as least squares, so that their matrix is not squared: [design; 0 I].
        Q, R = np.linalg.qr(np.vstack([root_weights[:, None] * design, np.eye(size)[p:]]))
        inverse_root = np.linalg.inv(R)
        solution = inverse_root @ (Q[: len(rows.y)].T @ (root_weights * rows.y))
        new = np.ones(len(X))
        parts = [X]
        for z, code, (_, m), root, covariance in zip(
            columns, codes, rows.shapes, roots, self.covariances, strict=True
        ):
            parts.append(spread(z, code, m) @ root)
            new += np.where(code < 0, np.einsum("ra,ab,rb->r", z, covariance, z), 0.0)
        at = np.hstack(parts)
        variance = new + np.square(at @ inverse_root).sum(axis=1)
        return at @ solution, self.s2 * variance
