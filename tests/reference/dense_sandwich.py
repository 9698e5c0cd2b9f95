"""Cluster-robust covariances and their degrees of freedom, densely, by their definitions.

Scores are linear in the response, ``g = G y``, so that their covariance under the model is
``G Sigma G'`` whatever the adjustment is; degrees of freedom follow from that matrix alone.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import block_diag, sqrtm


class DenseSandwich:
    """The covariance of generalised least squares with the covariance Sigma of the rows."""

    def __init__(self, X, y, Sigma, clusters, correction):
        labels = np.unique(clusters)
        n, p, m = *X.shape, len(labels)
        inverse = np.linalg.inv(Sigma)
        bread = np.linalg.inv(X.T @ inverse @ X)
        left = np.eye(n) - X @ bread @ X.T @ inverse
        factors = {
            "CR0": 1.0,
            "CR1": m / (m - 1),
            "CR1p": m / (m - p),
            "CR1S": m * (n - 1) / ((m - 1) * (n - p)),
        }
        order, parts = [], []
        for label in labels:
            own = np.flatnonzero(clusters == label)
            order.append(own)
            if correction == "CR2":
                root = np.linalg.cholesky(Sigma[np.ix_(own, own)]).T
                middle = root @ left[own] @ Sigma @ left[own].T @ root.T
                parts.append(root.T @ np.linalg.inv(np.real(sqrtm(middle))) @ root)
            else:
                parts.append(np.sqrt(factors[correction]) * np.eye(len(own)))
        # For every cluster, its scores as rows of p numbers.
        order = np.concatenate(order)
        A = np.zeros((n, n))
        A[np.ix_(order, order)] = block_diag(*parts)
        weights = bread @ X.T @ inverse @ A
        self.scores = np.array([(weights * (clusters == label)) @ left for label in labels])
        self.Sigma = Sigma
        found = self.scores @ y
        self.covariance = found.T @ found

    def spread(self, L):
        """Covariances of the scores of contrasts of shape (q, p) under the model: (m, q, m, q)."""
        turned = np.array([L @ own for own in self.scores])
        return np.einsum("iqn,nk,jrk->iqjr", turned, self.Sigma, turned)

    def single_df(self, contrast):
        """Twice the squared mean of the estimated variance over its variance."""
        spread = self.spread(contrast[None])[:, 0, :, 0]
        return np.trace(spread) ** 2 / np.square(spread).sum()

    def hotelling_df(self, L):
        """Degrees of freedom of the denominator of the approximate Hotelling test."""
        q = len(L)
        mean = np.einsum("iqir->qr", self.spread(L))
        root = np.linalg.inv(np.real(sqrtm(mean)))
        spread = self.spread(root @ L)
        total = np.einsum("isjs,itjt->", spread, spread) + np.einsum("isjt,itjs->", spread, spread)
        return q * (q + 1) / total - q + 1
