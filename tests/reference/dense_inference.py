"""Degrees of freedom and adjusted covariances, densely, from the n x n matrices of the textbook.

The covariance of the rows is linear in its parameters, ``Sigma = sum_r gamma_r G_r``: the free
entries of every factor's covariance matrix and the noise variance, all in the user's units. With
``Phi = (X'Sigma^-1 X)^-1`` and ``P = Sigma^-1 - Sigma^-1 X Phi X'Sigma^-1``

    observed:  -tr(P G_r P G_s) + 2 y'P G_r P G_s P y     (V^-1 in the trace for ML)
    expected:  tr(P G_r P G_s)

are minus twice the second derivatives of the log-likelihood.
"""

from __future__ import annotations

import numpy as np


def free_entries(mask):
    """Variances, then covariances, as symmetric matrices."""
    q = len(mask)
    pairs = [(i, i) for i in range(q)]
    pairs += [(i, j) for i in range(q) for j in range(i + 1, q) if mask[i, j]]
    found = []
    for i, j in pairs:
        entry = np.zeros((q, q))
        entry[i, j] = entry[j, i] = 1.0
        found.append(entry)
    return found


def hessian_by_differences(function, at, step):
    """Central second differences."""
    size = len(at)
    steps = step * np.eye(size)
    found = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            corners = [
                sign * other * function(at + sign * steps[i] + other * steps[j])
                for sign in (-1, 1)
                for other in (-1, 1)
            ]
            found[i, j] = sum(corners) / (4.0 * step**2)
    return found


def satterthwaite_by_differences(rows, lower, sigma, contrast, step=1e-3):
    """Degrees of freedom with one factor, in the chart (Lambda's lower triangle, sigma) of lme4.

    Directions in which the deviance does not curve upwards are left out.
    """
    triangle = np.tril_indices(len(lower))
    n, p = rows.X.shape
    df = n - p if rows.reml else n

    def solve(parameters):
        root = np.zeros_like(lower)
        root[triangle] = parameters[:-1]
        return rows.at([root @ root.T]), parameters[-1] ** 2

    def deviance(parameters):
        solution, s2 = solve(parameters)
        profiled = solution.objective - df * (1.0 + np.log(2.0 * np.pi * solution.s2))
        return profiled + df * np.log(s2) + df * solution.s2 / s2

    def variance(parameters):
        solution, s2 = solve(parameters)
        return s2 * (contrast @ solution.coef_covariance @ contrast)

    at = np.append(lower[triangle], sigma)
    values, vectors = np.linalg.eigh(hessian_by_differences(deviance, at, step))
    gradient = np.array(
        [
            (variance(at + move) - variance(at - move)) / (2.0 * step)
            for move in step * np.eye(len(at))
        ]
    )
    turned = (vectors.T @ gradient)[values > 1e-3]
    return variance(at) ** 2 / (turned @ (turned / values[values > 1e-3]))


class DenseInference:
    """All matrices of a fitted model.

    Parameters
    ----------
    rows : reference.dense.Dense
    directions : list of list of ndarray
        For every factor, the symmetric matrices that span its covariance.
    covariances : list of ndarray of shape (q, q)
        In the user's units.
    noise : float
    """

    def __init__(self, rows, directions, covariances, noise):
        self.G = [np.diag(1.0 / rows.weights)]
        Sigma = noise * self.G[0]
        for wide, own, covariance, (_, m) in zip(
            rows.wide, directions, covariances, rows.shapes, strict=True
        ):
            Sigma = Sigma + wide @ np.kron(covariance, np.eye(m)) @ wide.T
            self.G += [wide @ np.kron(entry, np.eye(m)) @ wide.T for entry in own]
        self.rows = rows
        self.inverse = np.linalg.inv(Sigma)
        X, y, inverse = rows.X, rows.y, self.inverse
        self.Phi = np.linalg.inv(X.T @ inverse @ X)
        self.coef = self.Phi @ X.T @ inverse @ y
        self.P = inverse - inverse @ X @ self.Phi @ X.T @ inverse
        self.Ps = [-X.T @ inverse @ G @ inverse @ X for G in self.G]

    def parameter_covariance(self, *, observed):
        middle = self.P if self.rows.reml else self.inverse
        traces = np.array([[np.trace(middle @ G @ middle @ H) for H in self.G] for G in self.G])
        if not observed:
            return 2.0 * np.linalg.inv(traces)
        turned = [G @ self.P @ self.rows.y for G in self.G]
        forms = np.array([[g @ self.P @ h for h in turned] for g in turned])
        return 2.0 * np.linalg.inv(2.0 * forms - traces)

    def satterthwaite(self, contrast):
        """Degrees of freedom of one contrast."""
        gradient = np.array([-contrast @ self.Phi @ P @ self.Phi @ contrast for P in self.Ps])
        variance = contrast @ self.Phi @ contrast
        return 2.0 * variance**2 / (gradient @ self.parameter_covariance(observed=True) @ gradient)

    def satterthwaite_joint(self, L):
        """F and degrees of freedom of several contrasts (Fai & Cornelius 1996)."""
        values, vectors = np.linalg.eigh(L @ self.Phi @ L.T)
        rows = vectors.T @ L
        F = np.mean((rows @ self.coef) ** 2 / values)
        nu = np.array([self.satterthwaite(row) for row in rows])
        E = np.sum(nu / (nu - 2.0))
        return F, 2.0 * E / (E - len(L))

    def adjusted_covariance(self):
        """Kenward and Roger's covariance of the coefficients."""
        X, inverse = self.rows.X, self.inverse
        W = self.parameter_covariance(observed=False)
        total = np.zeros_like(self.Phi)
        for r, G in enumerate(self.G):
            for s, H in enumerate(self.G):
                Q = X.T @ inverse @ G @ inverse @ H @ inverse @ X
                total += W[r, s] * (Q - self.Ps[r] @ self.Phi @ self.Ps[s])
        return self.Phi + 2.0 * self.Phi @ total @ self.Phi

    def kenward_roger(self, L):
        """F, scaled, and degrees of freedom (Kenward & Roger 1997, section 3)."""
        q = len(L)
        W = self.parameter_covariance(observed=False)
        Theta = L.T @ np.linalg.inv(L @ self.Phi @ L.T) @ L
        A1 = A2 = 0.0
        for r, P in enumerate(self.Ps):
            for s, R in enumerate(self.Ps):
                left, right = Theta @ self.Phi @ P @ self.Phi, Theta @ self.Phi @ R @ self.Phi
                A1 += W[r, s] * np.trace(left) * np.trace(right)
                A2 += W[r, s] * np.trace(left @ right)
        B = (A1 + 6.0 * A2) / (2.0 * q)
        g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
        c = 3.0 * q + 2.0 * (1.0 - g)
        c1, c2, c3 = g / c, (q - g) / c, (q + 2.0 - g) / c
        mean = 1.0 / (1.0 - A2 / q)
        variance = 2.0 / q * (1.0 + c1 * B) / ((1.0 - c2 * B) ** 2 * (1.0 - c3 * B))
        rho = variance / (2.0 * mean**2)
        df = 4.0 + (q + 2.0) / (q * rho - 1.0)
        estimates = L @ self.coef
        F = estimates @ np.linalg.solve(L @ self.adjusted_covariance() @ L.T, estimates) / q
        return df / (mean * (df - 2.0)) * F, df
