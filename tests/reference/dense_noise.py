"""Models with residual structures by dense algebra: V of all rows, and everything from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

STEP = 1e-4


@dataclass(frozen=True)
class DenseModel:
    """A linear model with the covariance V(parameters) of all rows.

    Attributes
    ----------
    X : ndarray of shape (n, p)
    y : ndarray of shape (n,)
    covariance : callable
        From parameters of shape (a,), of any kind, to V.
    reml : bool
    """

    X: np.ndarray
    y: np.ndarray
    covariance: Callable[[np.ndarray], np.ndarray]
    reml: bool = True

    def solve(self, parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Minus twice the log-likelihood, the coefficients and their covariance."""
        V = self.covariance(parameters)
        inverse = np.linalg.inv(V)
        gram = self.X.T @ inverse @ self.X
        C = np.linalg.inv(gram)
        coef = C @ (self.X.T @ inverse @ self.y)
        residual = self.y - self.X @ coef
        n, p = self.X.shape
        value = np.linalg.slogdet(V)[1] + residual @ inverse @ residual
        if self.reml:
            value += np.linalg.slogdet(gram)[1]
        return value + (n - p if self.reml else n) * np.log(2.0 * np.pi), coef, C

    def objective(self, parameters: np.ndarray) -> float:
        return self.solve(parameters)[0]

    def derivatives(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and Hessian of the objective by central differences."""
        steps = STEP * np.eye(len(parameters)) * np.maximum(np.abs(parameters), 0.1)
        f = self.objective
        gradient = np.array(
            [(f(parameters + s) - f(parameters - s)) / (2.0 * s.sum()) for s in steps]
        )
        hessian = np.array(
            [
                [
                    (
                        f(parameters + s + t)
                        - f(parameters + s - t)
                        - f(parameters - s + t)
                        + f(parameters - s - t)
                    )
                    / (4.0 * s.sum() * t.sum())
                    for t in steps
                ]
                for s in steps
            ]
        )
        return gradient, hessian

    def directions(self, parameters: np.ndarray) -> np.ndarray:
        """Derivatives of V by the parameters, by central differences."""
        steps = 1e-6 * np.eye(len(parameters)) * np.maximum(np.abs(parameters), 0.1)
        return np.array(
            [
                (self.covariance(parameters + s) - self.covariance(parameters - s))
                / (2.0 * s.sum())
                for s in steps
            ]
        )

    def kenward_roger(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The linear adjusted covariance of the coefficients, and the degrees of freedom of each.

        With the observed information; Kenward & Roger (1997) without second derivatives of V.
        """
        _, _, C = self.solve(parameters)
        W = 2.0 * np.linalg.inv(self.derivatives(parameters)[1])
        inverse = np.linalg.inv(self.covariance(parameters))
        directions = self.directions(parameters)
        turned = [inverse @ own @ inverse for own in directions]
        P = [-self.X.T @ own @ self.X for own in turned]
        total = np.zeros_like(C)
        for a, first in enumerate(directions):
            for b in range(len(directions)):
                Q = self.X.T @ inverse @ first @ turned[b] @ self.X
                total += W[a, b] * (Q - P[a] @ C @ P[b])
        gradients = np.array([np.diag(-C @ own @ C) for own in P])
        df = 2.0 * np.diag(C) ** 2 / np.einsum("ak,ab,bk->k", gradients, W, gradients)
        return C + 2.0 * C @ total @ C, df
