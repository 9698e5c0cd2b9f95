r"""Cluster-robust covariance of the coefficients, cluster by cluster.

Notation
--------
All is relative to the noise variance, in columns for which ``X'V^-1 X = I``, so that a contrast is
a row x in the columns of the root of the model's covariance. V falls into blocks V_i by clusters,
and weights w are in it: ``V_i = diag(1 / w) + Z_i D Z_i'``, or with the noise covariance R of a
residual structure ``V_i = diag(w)^-1/2 R_i diag(w)^-1/2 + Z_i D Z_i'``. With residuals
``e = y - X beta``,

    scores  s_i = E_i'e_i,    E_i = A_i V_i^-1 X_i,    the covariance is sum_i s_i s_i'

A_i is a number, or for CR2 the symmetric matrix with ``A_i (V_i - X_i X_i') A_i = V_i``, by which
the covariance is unbiased if V is right (Pustejovsky & Tipton 2018, equation 10),

    A_i = S (S (V_i - X_i X_i') S)^-1/2 S,    S S = V_i

If V is right, the scores of two clusters have the covariance

    cov(s_i, s_j) = [i = j] E_i'V_i E_i - F_i F_j',    F_i = E_i'X_i

from which the mean and the variance of the sandwich follow, and with them degrees of freedom.

Eigenvalues of ``X_i'V_i^-1 X_i`` are at most one; where one is, its vector is a contrast that the
cluster alone determines. ``V_i - X_i X_i'`` has as many eigenvalues that are zero, and a
pseudo-inverse stands for the inverse.

Rows of a large cluster that have the same weight are turned by an orthogonal matrix, by which
[Z_i X_i e_i] becomes a triangle and all rows below are zero. That changes none of these numbers.
Where noise is correlated no matrix does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.rows import CodedRows, Codes
from mixedlearn.engines.plan import check_block_memory
from mixedlearn.inference._uncertainty import Uncertainty
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.prediction import predict_mean
from mixedlearn.model.row_noise import RowNoise

FloatArray = NDArray[np.float64]

# Beyond this share of its information, a cluster alone determines a contrast.
ALONE = 1.0 - 1e-8
# Clusters of more rows are reduced to triangles.
LARGE_CLUSTER = 64
# Entries of the matrices V_i that are held at a time.
MOST_ENTRIES = 1 << 21


@dataclass(frozen=True, slots=True)
class Sandwich:
    """The sums over clusters.

    Attributes
    ----------
    middle : ndarray of shape (p, p)
        Sum of the squares of the scores, in squared units of y.
    spreads : ndarray of shape (m, p, p)
        ``E_i'V_i E_i``.
    shares : ndarray of shape (m, p, p)
        F_i.
    alone : ndarray of shape (p, k)
        Contrasts that a single cluster determines.
    """

    middle: FloatArray
    spreads: FloatArray
    shares: FloatArray
    alone: FloatArray


@dataclass(frozen=True, slots=True)
class SandwichUncertainty(Uncertainty):
    """Degrees of freedom by the variance of the sandwich if the model is right.

    Attributes
    ----------
    spreads, shares : ndarray of shape (m, p, p)
        See `Sandwich`.
    """

    spreads: FloatArray
    shares: FloatArray

    def single_df(self, turned: FloatArray) -> FloatArray:
        """Degrees of freedom of contrasts (Bell & McCaffrey 2002); see `Uncertainty`."""
        return np.array([self._joint(row[None]) for row in turned], dtype=np.float64)

    def joint_df(self, axes: FloatArray) -> tuple[float, float]:
        """The approximate Hotelling test; F's factor is NaN where it has no degrees of freedom."""
        eta = self._joint(axes)
        df = eta - len(axes) + 1.0
        return df, df / eta if df > 0.0 else np.nan

    def _joint(self, axes: FloatArray) -> float:
        """Degrees of freedom of the sandwich of some contrasts, as if a Wishart matrix's.

        NaN where the sandwich has no mean in some direction.
        """
        spreads = axes @ self.spreads @ axes.T
        shares = axes @ self.shares
        squares = shares @ shares.transpose(0, 2, 1)
        values, vectors = np.linalg.eigh((spreads - squares).sum(axis=0))
        if values[0] <= (1.0 - ALONE) * np.einsum("qi,qi->q", axes, axes).max():
            return np.nan
        root = (vectors / np.sqrt(values)) @ vectors.T
        spreads, squares = root @ spreads @ root, root @ squares @ root
        shares = root @ shares
        both = spreads - 2.0 * squares
        traces = np.einsum("mqq->m", spreads), np.einsum("mqq->m", both)
        total = float(traces[0] @ traces[1] + np.einsum("mqr,mrq->", spreads, both))
        for q in range(len(axes)):
            for r in range(len(axes)):
                product = shares[:, q].T @ shares[:, r]
                total += float(np.square(product).sum() + (product * product.T).sum())
        return len(axes) * (len(axes) + 1.0) / total


def sandwich(
    model: FittedModel,
    rows: CodedRows,
    clusters: NDArray[np.integer],
    n_clusters: int,
    factor: float | None,
    noise: RowNoise | None,
) -> Sandwich:
    """Sum over clusters.

    Parameters
    ----------
    model : FittedModel
    rows : CodedRows
        Of the fit, all of positive weight.
    clusters : ndarray of shape (n,), int
        Cluster of every row; the levels of all factors are nested in them.
    n_clusters : int
    factor : float or None
        A_i; None for CR2.
    noise : RowNoise or None
        The covariance of the noise of these rows; None: it is independent.
    """
    p = len(model.fixed_effects.coef)
    middle, alone = np.zeros((p, p)), [np.empty((p, 0))]
    spreads, shares = np.empty((n_clusters, p, p)), np.empty((n_clusters, p, p))
    for own, X, V, residuals in _blocks(model, rows, clusters, n_clusters, noise):
        whitened = _Whitened.of(X, V)
        is_alone = whitened.values > ALONE
        alone += [vectors[:, its] for vectors, its in zip(whitened.vectors, is_alone, strict=True)]
        E = whitened.adjusted(is_alone) if factor is None else factor * whitened.solved
        turned = E.transpose(0, 2, 1)
        scores = np.einsum("gpn,gn->gp", turned, residuals)
        middle += scores.T @ scores
        spreads[own], shares[own] = turned @ V @ E, turned @ X
    return Sandwich(middle, spreads, shares, np.hstack(alone))


@dataclass(frozen=True, slots=True)
class _Whitened:
    """X of some clusters in the axes of V, and its products.

    Attributes
    ----------
    axes : ndarray of shape (g, n, n)
        Eigenvectors of V.
    lengths : ndarray of shape (g, n, 1)
        Roots of its eigenvalues.
    X : ndarray of shape (g, n, p)
        ``V^-1/2 X`` in these axes.
    values : ndarray of shape (g, p)
        Eigenvalues of ``X'V^-1 X``.
    vectors : ndarray of shape (g, p, p)
        Its eigenvectors.
    """

    axes: FloatArray
    lengths: FloatArray
    X: FloatArray
    values: FloatArray
    vectors: FloatArray

    @classmethod
    def of(cls, X: FloatArray, V: FloatArray) -> _Whitened:
        squares, axes = np.linalg.eigh(V)
        # What rounding may leave below zero is far above it.
        least = np.finfo(np.float64).eps * squares[:, -1:]
        lengths = np.sqrt(np.maximum(squares, least))[:, :, None]
        whitened = axes.transpose(0, 2, 1) @ X / lengths
        return cls(axes, lengths, whitened, *np.linalg.eigh(whitened.transpose(0, 2, 1) @ whitened))

    @property
    def solved(self) -> FloatArray:
        """``V^-1 X``, shape (g, n, p)."""
        return np.asarray(self.axes @ (self.X / self.lengths))

    def adjusted(self, is_alone: NDArray[np.bool_]) -> FloatArray:
        """``A V^-1 X`` of CR2, shape (g, n, p).

        With ``V = diag(d)^2`` in its axes and W the whitened X, ``S (V - X X') S`` is ``G G'``
        with ``G = diag(d)^2 (I - W W')^1/2``, whose singular values have twice its digits.
        """
        n = self.X.shape[1]
        left = np.sqrt(np.where(is_alone, 0.0, 1.0 - self.values))
        turned = self.X @ self.vectors
        root = np.eye(n) - (turned / (1.0 + left)[:, None]) @ turned.transpose(0, 2, 1)
        basis, sizes, _ = np.linalg.svd(self.lengths**2 * root)
        is_zero = np.arange(n) >= n - is_alone.sum(axis=1)[:, None]
        inverse = np.where(is_zero, 0.0, 1.0 / np.where(is_zero, 1.0, sizes))[:, :, None]
        found = basis @ (inverse * (basis.transpose(0, 2, 1) @ self.X))
        return np.asarray(self.axes @ (self.lengths * found))


def _blocks(
    model: FittedModel,
    rows: CodedRows,
    clusters: NDArray[np.integer],
    n_clusters: int,
    noise: RowNoise | None,
) -> Iterator[tuple[NDArray[np.intp], FloatArray, FloatArray, FloatArray]]:
    """Clusters with X, V and e, in stacks of as many rows each: (g,), (g, n, p), (g, n, n), ..."""
    data = _rows_of(model, rows, noise)
    is_whole = noise is not None and noise.is_correlated
    counts = np.bincount(clusters, minlength=n_clusters)
    if is_whole:
        check_block_memory([(1, int(counts.max()))], 1)
    order, starts = np.argsort(clusters, kind="stable"), np.cumsum(counts) - counts
    for n in np.unique(counts):
        members = np.flatnonzero(counts == n)
        step = max(MOST_ENTRIES // int(n) ** 2, 1) if n <= LARGE_CLUSTER else 1
        for start in range(0, len(members), step):
            own = members[start : start + step]
            places = order[starts[own][:, None] + np.arange(n)]
            if n <= LARGE_CLUSTER or is_whole:
                yield own, data.X[places], data.covariance(places), data.residuals[places]
            else:
                yield own, *data.reduced(places[0])


@dataclass(frozen=True, slots=True)
class _RowData:
    """What the covariance takes from the rows.

    Attributes
    ----------
    X : ndarray of shape (n, p)
    effects : list of ndarray of shape (n, q_k)
        For every factor, the rows' columns times Lambda.
    codes : list of ndarray of shape (n,), int
        Their levels.
    residuals : ndarray of shape (n,)
    noise : ndarray of shape (n,)
        Variances of the noise relative to that of weight one.
    structure : RowNoise or None
        Where noise is correlated, its covariance for rows of weight one.
    """

    X: FloatArray
    effects: list[FloatArray]
    codes: list[Codes]
    residuals: FloatArray
    noise: FloatArray
    structure: RowNoise | None

    def covariance(self, places: NDArray[np.intp]) -> FloatArray:
        """V of clusters of rows (g, n), shape (g, n, n)."""
        g, n = places.shape
        if self.structure is None:
            V = np.zeros((g, n, n))
            V[:, np.arange(n), np.arange(n)] = self.noise[places]
        else:
            V = self.structure.covariance(places)
            sizes = np.sqrt(self.noise[places] / self.structure.variances[places])
            V *= sizes[:, :, None] * sizes[:, None, :]
        for effects, codes in zip(self.effects, self.codes, strict=True):
            own, levels = effects[places], codes[places]
            V += (own @ own.transpose(0, 2, 1)) * (levels[:, :, None] == levels[:, None, :])
        return V

    def reduced(self, places: NDArray[np.intp]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """X, V and e of a cluster whose rows of the same weight are turned into a triangle."""
        own = [self.X[places], self.residuals[places, None]]
        for effects, codes in zip(self.effects, self.codes, strict=True):
            levels, local = np.unique(codes[places], return_inverse=True)
            wide = np.zeros((len(places), len(levels), effects.shape[1]))
            wide[np.arange(len(places)), local] = effects[places]
            own.append(wide.reshape(len(places), -1))
        both, p = np.hstack(own), self.X.shape[1]
        parts, variances = [], []
        for variance in np.unique(self.noise[places]):
            part = both[self.noise[places] == variance]
            if len(part) > part.shape[1]:
                part = np.linalg.qr(part, mode="r")
            parts.append(part)
            variances.append(np.full(len(part), variance))
        turned = np.vstack(parts)
        Z = turned[:, p + 1 :]
        V = np.diag(np.concatenate(variances)) + Z @ Z.T
        return turned[None, :, :p], V[None], turned[None, :, p]


def _rows_of(model: FittedModel, rows: CodedRows, noise: RowNoise | None) -> _RowData:
    basis = model.sums.basis_rows(rows.X)
    columns = model.fixed_basis.columns[:-1] @ model.fixed_effects.inverse_root
    effects = [
        model.sums.z_rows(k, basis) @ random.columns @ root
        for k, (random, root) in enumerate(zip(model.random_bases, model.roots, strict=True))
    ]
    residuals = rows.given_response - predict_mean(model, rows.of_population())
    variances, structure = 1.0 / rows.given_weights, None
    if noise is not None:
        variances, structure = variances * noise.variances, noise if noise.is_correlated else None
    return _RowData(basis @ columns, effects, rows.known_codes, residuals, variances, structure)
