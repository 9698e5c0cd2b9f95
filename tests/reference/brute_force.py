"""Linear mixed models by brute force: slow, independent of the package, hard to get wrong.

Everything here works on rows, never on cross-products, and by orthogonal transformations, never by
normal equations. With ``D = F F'`` the covariance of one level's effects relative to the noise
variance (``F`` any factor of ``D``, ``q`` rows), the augmented least-squares problem ::

    [ W^(1/2) Z F   W^(1/2) X ] [ u    ]     [ W^(1/2) y ]
    [ I             0         ] [ beta ]  ~  [ 0         ]

has the triangular factor ``R`` with log|V_w| = 2 sum log|R_uu|, log|X'V^-1 X| = 2 sum log|R_bb| and
r2 = R_yy^2 where V_w = I + W^(1/2) Z D Z' W^(1/2). The criterion is what lme4 prints ::

    f = log|V_w| - sum(log w) + [log|X'V^-1 X| if REML] + df (1 + log(2 pi r2 / df))

for the columns of X as given; df is n - p for REML, n for ML. (log|V_w| - sum log w is log|V| for
V = W^-1 + Z D Z'.)

Columns are centred and scaled inside, in extended precision, and the log-determinant of that
change of basis is put back, so covariates of any scale and offset are safe. `criterion` and `solve`
use one dense Householder factorisation of the whole problem in ``numpy.longdouble``; `best_fit`
searches with the same factorisation done level by level in float64 and a gradient that comes out of
the orthogonal factors, and takes its final value from the dense one.

A covariance may be handed in as ``D`` or as a factor ``F``. The factor is the better choice where a
covariate has an offset of many standard deviations: forming ``D`` in the original units squares the
loss of digits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.optimize

LD = np.longdouble
BOUND = 1e6  # largest |Lambda| of a search, for columns of root mean square one


# --- a basis in which the columns are of order one -----------------------------------------------
class Basis:
    """Columns ``c`` become ``(c - shift * constant) / scale``, then times a triangular matrix.

    ``mode``: "centre" (shift where there is a constant column, and scale), "scale" (each column by
    its root mean square), "common" (all columns by one number). ``orthogonalise`` makes the
    columns orthonormal over the rows, up to the factor sqrt(n).
    """

    def __init__(self, columns, weights, mode="centre", orthogonalise=False):
        columns = np.asarray(columns, dtype=float)
        n, k = columns.shape
        share = weights / weights.sum()
        constant = [j for j in range(k) if n and columns[0, j] != 0 and np.ptp(columns[:, j]) == 0]
        self.constant = constant[0] if constant and mode == "centre" else None
        self.value = None if self.constant is None else columns[0, self.constant]
        self.shift = np.zeros(k)
        self.scale = np.ones(k)
        if self.constant is not None:
            for j in range(k):
                if j not in constant:
                    self.shift[j] = share @ columns[:, j] / self.value
        moved = self._centred(columns)
        size = np.sqrt(np.asarray(share @ moved**2, dtype=float))
        size[size == 0] = 1.0
        self.scale = np.full(k, size.max(initial=0.0)) if mode == "common" else size
        self.triangle = np.eye(k)
        if orthogonalise and k:
            whitened = np.sqrt(share)[:, None] * np.asarray(moved / self.scale, dtype=float)
            triangle = np.linalg.qr(whitened)[1]
            if np.abs(np.diag(triangle)).min() > 1e-10:
                self.triangle = triangle

    def _centred(self, columns):
        moved = np.asarray(columns, dtype=LD).copy()
        if self.constant is not None:
            moved -= moved[:, [self.constant]] * self.shift.astype(LD)
        return moved

    def rows(self, columns):
        """Rows in the new basis (extended precision)."""
        moved = self._centred(np.atleast_2d(columns)) / self.scale.astype(LD)
        return _solve_upper(self.triangle.astype(LD).T[::-1, ::-1], moved.T[::-1])[::-1].T

    def coefficients_in(self, coefficients):
        """Coefficients (k, any) of the original columns -> those of the new ones."""
        moved = np.asarray(coefficients, dtype=LD) * self.scale.astype(LD)[:, None]
        if self.constant is not None:
            added = self.shift.astype(LD) @ np.asarray(coefficients, dtype=LD)
            moved[self.constant] += added * self.scale.astype(LD)[self.constant]
        return self.triangle.astype(LD) @ moved

    def coefficients_out(self, coefficients):
        """The inverse of `coefficients_in`."""
        moved = _solve_upper(self.triangle.astype(LD), np.asarray(coefficients, dtype=LD))
        moved = moved / self.scale.astype(LD)[:, None]
        if self.constant is not None:
            moved[self.constant] -= self.shift.astype(LD) @ moved
        return moved

    def log_det(self):
        """log|det T| with ``T`` defined by new columns = old columns times ``T``."""
        diagonal = np.abs(np.diag(self.triangle)).astype(LD) * self.scale.astype(LD)
        return -np.sum(np.log(diagonal))


def _solve_upper(upper, right):
    """Back substitution, extended precision."""
    solution = np.array(right, dtype=LD)
    for j in range(upper.shape[0] - 1, -1, -1):
        solution[j] = (solution[j] - upper[j, j + 1 :] @ solution[j + 1 :]) / upper[j, j]
    return solution


def _householder(matrix):
    """Upper-triangular factor of a tall matrix, extended precision."""
    work = np.array(matrix, dtype=LD)
    rows, columns = work.shape
    for j in range(min(columns, rows - 1)):
        vector = work[j:, j].copy()
        touched = np.flatnonzero(vector)
        if touched.size == 0:
            continue
        length = np.sqrt(np.sum(vector[touched] ** 2))
        vector[0] += length if vector[0] >= 0 else -length
        touched = np.flatnonzero(vector)  # a zero of the reflector leaves its row alone
        vector = vector[touched]
        at = j + touched
        block = work[at, j:]
        work[at, j:] = block - np.outer(vector, (2 / (vector @ vector)) * (vector @ block))
    return np.triu(work[:columns])


# --- the problem in that basis -------------------------------------------------------------------
@dataclass
class _Data:
    """Whitened rows in the inner basis; `blocks` are the same rows level by level, zero-padded."""

    X: np.ndarray
    y: np.ndarray
    Z: np.ndarray
    codes: np.ndarray
    n_levels: int
    reml: bool
    x_basis: Basis
    z_basis: Basis
    y_shift: float
    log_weights: float
    evaluations: int = 0
    blocks: tuple = field(default=())

    @property
    def df(self):
        return self.X.shape[0] - (self.X.shape[1] if self.reml else 0)

    @property
    def offset(self):
        """What the inner criterion lacks: weights, and the change of basis of X."""
        return -self.log_weights - (2 * self.x_basis.log_det() if self.reml else 0)


def _prepare(X, y, Z, codes, weights, reml, structure="full"):
    X, Z = np.asarray(X, dtype=float), np.asarray(Z, dtype=float)
    y = np.asarray(y, dtype=float)
    codes = np.asarray(codes)
    weights = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=float)
    n_levels = int(codes.max()) + 1
    keep = weights > 0
    X, y, Z, codes, weights = X[keep], y[keep], Z[keep], codes[keep], weights[keep]
    x_basis = Basis(X, weights)
    if isinstance(structure, str):
        mode = {"full": "centre", "diagonal": "scale", "scalar": "common"}[structure]
    else:
        mode = "scale"
    z_basis = Basis(Z, weights, mode=mode, orthogonalise=mode == "centre")
    y_shift = float(weights @ y / weights.sum()) if x_basis.constant is not None else 0.0
    root = np.sqrt(weights.astype(LD))
    data = _Data(
        X=root[:, None] * x_basis.rows(X),
        y=root * (y.astype(LD) - LD(y_shift)),
        Z=root[:, None] * z_basis.rows(Z),
        codes=codes,
        n_levels=n_levels,
        reml=bool(reml),
        x_basis=x_basis,
        z_basis=z_basis,
        y_shift=y_shift,
        log_weights=np.sum(np.log(weights.astype(LD))),
    )
    if data.df < 1:
        raise ValueError("no residual degrees of freedom")
    (n, p), q = X.shape, Z.shape[1]
    order = np.argsort(codes, kind="stable")
    present, counts = np.unique(codes, return_counts=True)
    place = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    level = np.repeat(np.arange(len(present)), counts)
    padded = np.zeros((len(present), counts.max(), q + p + 1))
    rows = np.column_stack([data.Z, data.X, data.y]).astype(float)
    padded[level, place] = rows[order]
    data.blocks = (padded[:, :, :q].copy(), padded[:, :, q:].copy())
    return data


def _inner_factor(data, D, factor):
    if (D is None) == (factor is None):
        raise ValueError("give either D or a factor of D")
    if factor is not None:
        return data.z_basis.coefficients_in(np.atleast_2d(factor))
    half = data.z_basis.coefficients_in(np.asarray(D, dtype=float))
    inner = data.z_basis.coefficients_in(half.T)
    values, vectors = np.linalg.eigh(np.asarray((inner + inner.T) / 2, dtype=float))
    return vectors.astype(LD) * np.sqrt(np.clip(values, 0, None)).astype(LD)


def _dense_triangle(data, factor):
    """R of the whole augmented problem [Z F, X, y; I, 0, 0] in the inner basis."""
    (n, p), (_, r) = data.X.shape, factor.shape
    size = data.n_levels * r
    augmented = np.zeros((n + size, size + p + 1), dtype=LD)
    effects = data.Z @ factor
    for i in range(n):
        start = int(data.codes[i]) * r
        augmented[i, start : start + r] = effects[i]
    augmented[:n, size : size + p] = data.X
    augmented[:n, -1] = data.y
    augmented[n:, :size] = np.eye(size, dtype=LD)
    return _householder(augmented)


def _from_triangle(data, triangle):
    p = data.X.shape[1]
    diagonal = np.abs(np.diag(triangle))
    split = len(diagonal) - p - 1
    value = 2 * np.sum(np.log(diagonal[:split])) + data.offset
    if data.reml:
        value += 2 * np.sum(np.log(diagonal[split:-1]))
    s2 = diagonal[-1] ** 2 / data.df
    return value + data.df * (1 + np.log(2 * LD(np.pi) * s2)), s2


def criterion(D, X, y, Z, codes, weights=None, reml=True, *, factor=None):
    """Minus twice the profiled (restricted) log-likelihood, dense and in extended precision.

    Parameters
    ----------
    D : (q, q) array or None
        Covariance of one level's effects relative to the noise variance, in the units of ``Z``.
    X, y, Z, codes : (n, p), (n,), (n, q), (n,) arrays
        Fixed-effect columns (the intercept among them), response, random-effect columns (likewise),
        and the level of each row as 0, 1, ...
    weights : (n,) array, optional
        Precision weights; a row of weight zero is absent.
    reml : bool
    factor : (q, r) array, optional
        Instead of ``D``: any ``F`` with ``F F' = D``.
    """
    data = _prepare(X, y, Z, codes, weights, reml)
    triangle = _dense_triangle(data, _inner_factor(data, D, factor))
    return float(_from_triangle(data, triangle)[0])


def criterion_by_levels(D, X, y, Z, codes, weights=None, reml=True, *, factor=None):
    """The same number in float64, level by level: what `best_fit` searches with."""
    data = _prepare(X, y, Z, codes, weights, reml)
    inner = np.asarray(_inner_factor(data, D, factor), dtype=float)
    return _value_and_gradient(data, inner)[0] + float(data.offset)


# --- solution at a given D -----------------------------------------------------------------------
@dataclass(frozen=True)
class Solution:
    """Everything the mixed model equations give at one ``D`` (all in original units).

    ``conditional_covariances`` (m, q, q) take beta as known (lme4's condVar);
    ``prediction_error_covariances`` (m, q, q) are Var(b_hat - b), with beta estimated.
    """

    criterion: float
    s2: float
    beta: np.ndarray
    beta_covariance: np.ndarray
    blups: np.ndarray
    conditional_covariances: np.ndarray
    prediction_error_covariances: np.ndarray
    _data: _Data = field(repr=False)
    _factor: np.ndarray = field(repr=False)
    _root: np.ndarray = field(repr=False)
    _inner: np.ndarray = field(repr=False)

    def predict(self, x, z, level=None, weight=1.0):
        """Mean and error variance of a new observation with rows ``x`` (p,) and ``z`` (q,).

        ``level``: its code, or None for a level that is not in the data.
        """
        p, r = len(self.beta), self._factor.shape[1]
        row = np.zeros(len(self._inner), dtype=LD)
        basis = self._data.x_basis
        x = np.asarray(x, dtype=float)
        effect = self._data.z_basis.rows(np.asarray(z, dtype=float)[None])[0] @ self._factor
        row[len(row) - p :] = basis.rows(x[None])[0]
        relative = 1 / LD(weight)
        if level is None:
            relative += effect @ effect
        else:
            row[level * r : (level + 1) * r] = effect
        relative += np.sum((row @ self._root) ** 2)
        mean = row @ self._inner
        if basis.constant is not None:  # the response was centred
            mean += LD(self._data.y_shift) * x[basis.constant] / basis.value
        return float(mean), float(self.s2 * relative)


def solve(D, X, y, Z, codes, weights=None, reml=True, *, factor=None):
    """Generalised least squares, BLUPs and their covariances at ``D`` (arguments of `criterion`).

    Henderson's mixed model equations for the standardised effects ``u`` (b = F u), which need no
    inverse of D: the inverse of their matrix is R^-1 R^-T.
    """
    data = _prepare(X, y, Z, codes, weights, reml)
    inner = _inner_factor(data, D, factor)
    triangle = _dense_triangle(data, inner)
    value, s2 = _from_triangle(data, triangle)
    p, r, m = data.X.shape[1], inner.shape[1], data.n_levels
    size = m * r
    root = _solve_upper(triangle[:-1, :-1], np.eye(size + p, dtype=LD))
    solution = root @ triangle[:-1, -1]
    outer = data.z_basis.coefficients_out(inner)

    beta_inner = solution[size:]
    beta = data.x_basis.coefficients_out(beta_inner[:, None])[:, 0]
    if data.x_basis.constant is not None:
        at = data.x_basis.constant
        beta[at] += LD(data.y_shift) / data.x_basis.value
    beta_root = data.x_basis.coefficients_out(root[size:])
    conditional, error = [], []
    for i in range(m):
        rows = outer @ root[i * r : (i + 1) * r]
        error.append(s2 * rows @ rows.T)
        conditional.append(s2 * rows[:, :size] @ rows[:, :size].T)
    return Solution(
        criterion=float(value),
        s2=float(s2),
        beta=beta.astype(float),
        beta_covariance=np.asarray(s2 * beta_root @ beta_root.T, dtype=float),
        blups=(solution[:size].reshape(m, r) @ outer.T).astype(float),
        conditional_covariances=np.asarray(conditional, dtype=float),
        prediction_error_covariances=np.asarray(error, dtype=float),
        _data=data,
        _factor=inner,
        _root=root,
        _inner=solution,
    )


# --- objective and gradient for the search -------------------------------------------------------
def _value_and_gradient(data, factor):
    """Inner criterion (without `_Data.offset`) and its gradient in the entries of ``factor``.

    Level by level QR of [Z_i F, X_i, y_i; I, 0, 0], then QR of what is left of [X, y]. The gradient
    of log|A'A| is 2 pinv(A)', that of the residual sum of squares -2 e c' (residual e, solution c).
    """
    Z, tail = data.blocks
    (m, rows, _), p, r = Z.shape, tail.shape[2] - 1, factor.shape[1]
    data.evaluations += 1
    stacked = np.zeros((m, rows + r, r + p + 1))
    stacked[:, :rows, :r] = Z @ factor
    stacked[:, :rows, r:] = tail
    stacked[:, rows:, :r] = np.eye(r)
    Q, R = np.linalg.qr(stacked)
    rest = R[:, r:, r:]
    Q_rest, R_rest = np.linalg.qr(rest.reshape(-1, p + 1))
    Q_rest = Q_rest.reshape(m, -1, p + 1)
    r2 = R_rest[p, p] ** 2
    diagonal = np.abs(np.einsum("ijj->ij", R[:, :r, :r]))
    value = 2 * np.log(diagonal).sum()
    value += data.df * (1 + np.log(2 * np.pi * r2 / data.df))

    R_inv = np.linalg.inv(R[:, :r, :r])
    top = Q[:, :rows]
    ZQ = np.einsum("mnq,mnk->mqk", Z, top)
    on_tail = R_inv @ R[:, :r, r:]  # coefficients of X_i and y_i on the first columns
    beta = np.linalg.solve(R_rest[:p, :p], R_rest[:p, p]) if p else np.zeros(0)
    u = on_tail[:, :, p] - on_tail[:, :, :p] @ beta
    Ze = np.einsum("mqk,mk->mq", ZQ[:, :, r:], Q_rest[:, :, p]) * R_rest[p, p]
    gradient = 2 * np.einsum("mqk,msk->qs", ZQ[:, :, :r], R_inv)
    gradient -= 2 * data.df / r2 * Ze.T @ u
    if data.reml and p:
        value += 2 * np.log(np.abs(np.diag(R_rest)[:p])).sum()
        inverse = np.linalg.inv(R_rest[:p, :p])
        dual = ZQ[:, :, r:] @ Q_rest[:, :, :p] @ inverse.T
        gradient -= 2 * np.einsum("mqp,msp->qs", dual, on_tail[:, :, :p])
    return value, gradient


# --- which entries of Lambda are free ------------------------------------------------------------
def perfect_elimination_ordering(mask, rng=None):
    """An order of the variables that eliminates without fill, or None if the graph is not chordal.

    Each variable in turn must have later neighbours that are all neighbours of each other.
    """
    mask = np.asarray(mask, dtype=bool)
    left, order = list(range(len(mask))), []
    while left:
        candidates = []
        for v in left:
            near = [w for w in left if w != v and mask[v, w]]
            if all(mask[a, b] for a in near for b in near):
                candidates.append(v)
        if not candidates:
            return None
        pick = candidates[0] if rng is None else candidates[int(rng.integers(len(candidates)))]
        order.append(pick)
        left.remove(pick)
    return order


def _pattern(structure, q, rng=None):
    """Free entries of Lambda as a boolean (q, q) array, and the order that makes it triangular."""
    identity = list(range(q))
    if isinstance(structure, str):
        if structure == "full":
            return np.ones((q, q), dtype=bool), identity
        return np.eye(q, dtype=bool), identity
    mask = np.asarray(structure, dtype=bool)
    if mask.shape != (q, q) or not (mask == mask.T).all() or not mask.diagonal().all():
        raise ValueError("a mask is (q, q), symmetric, with a diagonal of True")
    if mask.all():
        return mask, identity
    order = perfect_elimination_ordering(mask, rng)
    if order is None:
        raise ValueError("the reference handles chordal masks only")
    place = np.argsort(order)
    return mask & (place[:, None] >= place[None, :]), order


def _factor_in_pattern(D, pattern, order):
    """Cholesky factor of D (inner units) in elimination order; safe for singular D."""
    q = len(D)
    if pattern.all():
        values, vectors = np.linalg.eigh((D + D.T) / 2)
        return vectors * np.sqrt(np.clip(values, 0, None))
    work = D[np.ix_(order, order)].copy()
    lower = np.zeros((q, q))
    tiny = 1e-14 * np.diag(work)
    for j in range(q):
        if work[j, j] > tiny[j]:
            lower[j:, j] = work[j:, j] / np.sqrt(work[j, j])
            work -= np.outer(lower[:, j], lower[:, j])
    result = np.zeros((q, q))
    result[np.ix_(order, order)] = lower
    return np.where(pattern, result, 0.0)


class _Search:
    """The criterion as a function of the free entries of Lambda."""

    def __init__(self, data, structure, rng):
        self.data, self.scalar = data, isinstance(structure, str) and structure == "scalar"
        self.q = data.Z.shape[1]
        self.pattern, self.order = _pattern(structure, self.q, rng)

    def factor(self, theta):
        if self.scalar:
            return theta[0] * np.eye(self.q)
        factor = np.zeros((self.q, self.q))
        factor[self.pattern] = theta
        return factor

    def theta(self, factor):
        return np.array([factor[0, 0]]) if self.scalar else factor[self.pattern]

    def theta_of(self, D):
        return self.theta(_factor_in_pattern(D, self.pattern, self.order))

    def __call__(self, theta):
        if not np.isfinite(theta).all() or np.abs(theta).max() > 10 * BOUND:
            return 1e30, np.zeros(len(theta))
        value, gradient = _value_and_gradient(self.data, self.factor(theta))
        if not np.isfinite(value):
            return 1e30, np.zeros(len(theta))
        if self.scalar:
            return value, np.array([np.trace(gradient)])
        return value, gradient[self.pattern]

    def value(self, theta):
        return self(theta)[0]

    def hessian(self, theta):
        columns = []
        for j in range(len(theta)):
            step = np.zeros(len(theta))
            step[j] = 1e-5 * max(abs(theta[j]), 1e-2)
            columns.append((self(theta + step)[1] - self(theta - step)[1]) / (2 * step[j]))
        hessian = np.array(columns)
        return (hessian + hessian.T) / 2

    def descend(self, theta, method):
        options = {"maxiter": 300}
        if method == "L-BFGS-B":
            options |= {"ftol": 1e-13, "gtol": 1e-7, "maxcor": 25}
            bounds = [(-BOUND, BOUND)] * len(theta)
        else:
            options |= {"gtol": 1e-7}
            bounds = None
        with np.errstate(all="ignore"):
            found = scipy.optimize.minimize(
                self, theta, jac=True, method=method, bounds=bounds, options=options
            )
        return (found.x, found.fun) if found.fun < 1e29 else (theta, self.value(theta))

    def newton(self, theta, value, steps=12):
        """Damped Newton steps; each is kept only if it lowers the criterion."""
        for _ in range(steps):
            _, gradient = self(theta)
            values, vectors = np.linalg.eigh(self.hessian(theta))
            size = np.maximum(np.abs(values), 1e-9 * max(np.abs(values).max(), 1e-300))
            step = -vectors @ ((vectors.T @ gradient) / size)
            best = (value, theta)
            for fraction in (1.0, 0.3, 0.03):
                trial = np.clip(theta + fraction * step, -BOUND, BOUND)
                trial_value = self.value(trial)
                if trial_value < best[0]:
                    best = (trial_value, trial)
                    break
            gain, (value, theta) = value - best[0], best
            if gain < 1e-11:
                break
        return theta, value

    def is_optimum(self, theta):
        """Is this a proper (local) optimum, not a saddle or a place where a search ran dry?"""
        _, gradient = self(theta)
        values, vectors = np.linalg.eigh(self.hessian(theta))
        if values[0] < -1e-6 * max(values[-1], 1e-300):
            return False
        along = vectors.T @ gradient
        return bool(along**2 @ (1 / np.maximum(values, 1e-9 * values[-1])) < 1e-6)


@dataclass(frozen=True)
class BestFit:
    """Best optimum found.

    ``D`` and ``factor`` (D = factor factor') are in the units of Z, relative to the noise variance
    ``s2``. ``local_optima``: criteria of the distinct optima that the starts ended in, best first
    (those within 1e-4 of each other count once). ``at_bound``: an entry of Lambda ended at the
    bound, so that the optimum may lie at infinity.
    """

    criterion: float
    D: np.ndarray
    factor: np.ndarray
    s2: float
    local_optima: tuple
    at_bound: bool
    n_evaluations: int


def best_fit(
    X, y, Z, codes, weights=None, reml=True, structure="full", n_starts=20, seed=0, start=None
):
    """Lowest criterion over D by many descents.

    Parameters
    ----------
    X, y, Z, codes, weights, reml
        As for `criterion`.
    structure : {"full", "diagonal", "scalar"} or boolean (q, q) mask of the free entries of D
        Masks must be chordal: their D are L L' with L of the same pattern in elimination order.
    n_starts : int
        Descents: identity, nearly zero, rank-deficient, random over many orders of magnitude, and
        the best of a few hundred random points.
    start : (q, r) array or list of these, optional
        Factors of D (units of Z) to start from too: can this solution be lowered any further?
    """
    data = _prepare(X, y, Z, codes, weights, reml, structure)
    rng = np.random.Generator(np.random.PCG64(seed))
    q = data.Z.shape[1]
    search = _Search(data, structure, None)

    def draw():
        scale = 10.0 ** rng.uniform(-3, 1) if rng.uniform() < 0.7 else 10.0 ** rng.uniform(-4, 5)
        own = 10.0 ** rng.uniform(-2, 2, size=q) if rng.uniform() < 0.6 else np.ones(q)
        factor = scale * own[:, None] * rng.standard_normal((q, q))
        kind = rng.integers(4)
        if kind == 0 and q > 1:  # rank deficient, but for a trace that lets the search leave it
            factor[:, int(rng.integers(1, q)) :] *= 1e-4
        elif kind == 1:
            factor = np.diag(np.diag(factor))
        return factor

    n_screen = 120 + 60 * q
    screened = sorted(
        (search.theta(draw()) for _ in range(n_screen)), key=lambda theta: search.value(theta)
    )
    handed = [] if start is None else (start if isinstance(start, list) else [start])
    starts = [search.theta(scale * np.eye(q)) for scale in (1.0, 1e-3, 0.1)]
    for factor in handed:
        inner = np.asarray(data.z_basis.coefficients_in(np.atleast_2d(factor)), dtype=float)
        starts.append(search.theta_of(inner @ inner.T))
    for i in range(n_starts):
        if len(starts) >= n_starts + len(handed):
            break
        starts.append(screened[i // 2] if i % 2 == 0 else search.theta(draw()))

    ends = []
    for i, theta in enumerate(starts):
        theta, value = search.descend(theta, "L-BFGS-B" if i % 3 else "BFGS")
        ends.append((value, np.clip(theta, -BOUND, BOUND)))
    if search.scalar:  # one parameter: look at all of it
        grid = 10.0 ** np.linspace(-8, 6, 141)
        values = [search.value(np.array([t])) for t in [0.0, *grid]]
        ends.append((values[0], np.zeros(1)))
        for k in range(1, len(grid)):
            if values[k] <= values[k - 1] and values[k] <= values[min(k + 1, len(grid))]:
                theta, value = search.descend(np.array([grid[k - 1]]), "L-BFGS-B")
                ends.append((value, theta))
    ends.sort(key=lambda pair: pair[0])

    # polish every distinct end: leave the boundary in every direction, change the elimination
    # order, Newton steps
    optima, seen = [], []
    for value, theta in ends:
        if any(abs(value - other) < 1e-4 for other in seen):
            continue
        seen.append(value)
        theta, value = search.newton(theta, value)
        best = (value, search.factor(theta), search.is_optimum(theta))
        for nudge in (1e-5, 1e-3, 1e-1):
            local = _Search(data, structure, rng)
            D = best[1] @ best[1].T
            D += np.diag(nudge * np.maximum(np.diag(D), 1e-2 * max(np.diag(D).max(), 1e-6)))
            theta, value = local.newton(*local.descend(local.theta_of(D), "BFGS"))
            if value < best[0]:
                best = (value, local.factor(theta), local.is_optimum(theta))
        optima.append(best)
    zero = np.zeros((q, q))  # always stationary: judged by its value
    optima.append((_value_and_gradient(data, zero)[0], zero, False))
    optima.sort(key=lambda entry: entry[0])
    value, factor, _ = optima[0]
    distinct = [value]
    for other, _, is_optimum in optima:
        if is_optimum and other > distinct[-1] + 1e-4:
            distinct.append(other)

    outer = np.asarray(data.z_basis.coefficients_out(factor), dtype=float)
    final = _prepare(X, y, Z, codes, weights, reml)
    triangle = _dense_triangle(final, final.z_basis.coefficients_in(outer))
    exact, s2 = _from_triangle(final, triangle)
    return BestFit(
        criterion=float(exact),
        D=outer @ outer.T,
        factor=outer,
        s2=float(s2),
        local_optima=tuple(float(v + float(data.offset)) for v in distinct),
        at_bound=bool(np.abs(factor).max() >= 0.99 * BOUND),
        n_evaluations=data.evaluations,
    )
