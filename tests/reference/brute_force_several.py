"""Linear mixed models with several grouping factors by brute force: slow, and hard to get wrong.

The model and the criterion are those of `brute_force`, with one sum more: factor k has the levels
``codes[k]``, the random-effect columns ``Zs[k]`` and the covariance ``Ds[k]`` of one level's
effects relative to the noise variance. The random effects are stacked factor by factor, level by
level, effect by effect, and the augmented least-squares problem ::

    [ W^(1/2) Z F   W^(1/2) X ] [ u    ]     [ W^(1/2) y ]
    [ I             0         ] [ beta ]  ~  [ 0         ]

has all factors side by side in ``Z F``. Nothing is assumed of how they are crossed or nested. There
are three ways to the criterion:

- `criterion` and `solve` take one dense Householder factorisation in ``numpy.longdouble``;
- `best_fit` searches with the same factorisation in float64, the rows compressed once by an
  orthogonal transformation, and a gradient that comes out of the orthogonal factor;
- `gradient` goes by the n x n covariance ``V = I + Z D Z'`` of the rows instead, whose Cholesky
  factor is that of an orthogonal factorisation too. It is the gradient in the entries of D, so it
  also tells whether a variance of zero would gain by growing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
import scipy.optimize

from reference.brute_force import (
    BOUND,
    LD,
    _Data,
    _from_triangle,
    _householder,
    _inner_factor,
    _prepare,
    _Search,
    _solve_upper,
)

SAME = 1e-4  # criteria that differ by less belong to one optimum


# --- the problem in inner units ------------------------------------------------------------------
@dataclass
class _Rows:
    """One `brute_force._Data` for every factor; they share the rows, the response and X."""

    parts: list[_Data]
    evaluations: int = 0
    _compressed: tuple | None = None

    @property
    def first(self):
        return self.parts[0]

    @property
    def n_fixed(self):
        return self.first.X.shape[1]

    def effects(self, factors=None):
        """(n, sum of m r) matrix Z F of all factors; Z itself without ``factors``."""
        wide = []
        for k, part in enumerate(self.parts):
            columns = part.Z if factors is None else part.Z @ factors[k]
            n, r = columns.shape
            block = np.zeros((n, part.n_levels, r), dtype=columns.dtype)
            block[np.arange(n), part.codes] = columns
            wide.append(block.reshape(n, -1))
        return np.hstack(wide)

    def compressed(self):
        """[Z_1], [Z_2], ... as (rows, m, q) arrays and [X, y], all turned to fewer rows."""
        if self._compressed is None:
            both = np.column_stack([self.effects(), self.first.X, self.first.y]).astype(float)
            turned = np.linalg.qr(both, mode="r")
            blocks, start = [], 0
            for part in self.parts:
                shape = (part.n_levels, part.Z.shape[1])
                stop = start + shape[0] * shape[1]
                blocks.append(np.ascontiguousarray(turned[:, start:stop]).reshape(-1, *shape))
                start = stop
            self._compressed = blocks, turned[:, start:]
        return self._compressed


def _rows(X, y, Zs, codes, weights, reml, structures=None):
    structures = structures or ["full"] * len(Zs)
    return _Rows(
        [
            _prepare(X, y, Z, code, weights, reml, structure)
            for Z, code, structure in zip(Zs, codes, structures, strict=True)
        ]
    )


def _inner_factors(data, Ds, factors):
    if (Ds is None) == (factors is None):
        raise ValueError("give either the covariances or factors of them")
    none = [None] * len(data.parts)
    Ds, factors = none if Ds is None else Ds, none if factors is None else factors
    return [_inner_factor(*each) for each in zip(data.parts, Ds, factors, strict=True)]


def _dense_triangle(data, factors):
    """R of the whole augmented problem [Z F, X, y; I, 0, 0] in the inner bases."""
    effects = data.effects(factors)
    (n, size), p = effects.shape, data.n_fixed
    augmented = np.zeros((n + size, size + p + 1), dtype=LD)
    augmented[:n, :size] = effects
    augmented[:n, size : size + p] = data.first.X
    augmented[:n, -1] = data.first.y
    augmented[n:, :size] = np.eye(size, dtype=LD)
    return _householder(augmented)


def criterion(Ds, X, y, Zs, codes, weights=None, reml=True, *, factors=None):
    """Minus twice the profiled (restricted) log-likelihood, dense and in extended precision.

    Parameters
    ----------
    Ds : list of (q_k, q_k) arrays, or None
        Covariance of one level's effects relative to the noise variance, in the units of ``Zs``.
    X, y : (n, p), (n,) arrays
        Fixed-effect columns (the intercept among them) and response.
    Zs, codes : lists of (n, q_k) and (n,) arrays
        Random-effect columns of each factor, and the level of each row as 0, 1, ...
    weights : (n,) array, optional
        Precision weights; a row of weight zero is absent.
    reml : bool
    factors : list of (q_k, r_k) arrays, optional
        Instead of ``Ds``: any ``F`` with ``F F' = D``.
    """
    data = _rows(X, y, Zs, codes, weights, reml)
    triangle = _dense_triangle(data, _inner_factors(data, Ds, factors))
    return float(_from_triangle(data.first, triangle)[0])


def criterion_in_doubles(Ds, X, y, Zs, codes, weights=None, reml=True, *, factors=None):
    """The same number in float64: what `best_fit` searches with."""
    data = _rows(X, y, Zs, codes, weights, reml)
    inner = [np.asarray(factor, dtype=float) for factor in _inner_factors(data, Ds, factors)]
    return float(_value_and_gradients(data, inner)[0] + float(data.first.offset))


# --- by the covariance of the rows ---------------------------------------------------------------
def _by_rows(data, factors):
    """Inner criterion and, for each factor, its gradient in the entries of the inner D.

    With V = C'C the whitened columns are C'^-1 X, ...; the gradient is Z' K Z summed over levels,
    K = V^-1 - [V^-1 X (X' V^-1 X)^-1 X' V^-1] - df/r2 V^-1 (y - X beta) (y - X beta)' V^-1.
    """
    effects = np.asarray(data.effects(factors), dtype=float)
    first, p = data.first, data.n_fixed
    n = len(effects)
    upper = np.linalg.qr(np.vstack([effects.T, np.eye(n)]), mode="r")
    plain = np.asarray(data.effects(), dtype=float)
    columns = np.column_stack([first.X, first.y, plain]).astype(float)
    white = scipy.linalg.solve_triangular(upper, columns, trans="T")
    Q, R = np.linalg.qr(white[:, :p])
    residual = white[:, p] - Q @ (Q.T @ white[:, p])
    residual -= Q @ (Q.T @ residual)
    r2 = residual @ residual
    value = 2 * np.log(np.abs(np.diag(upper))).sum()
    value += first.df * (1 + np.log(2 * np.pi * r2 / first.df))
    if first.reml:
        value += 2 * np.log(np.abs(np.diag(R))).sum()
    gradients, start = [], p + 1
    for part in data.parts:
        m, q = part.n_levels, part.Z.shape[1]
        block = white[:, start : start + m * q]
        start += m * q
        along = (residual @ block).reshape(m, q)
        gradient = np.einsum("nmq,nms->qs", *[block.reshape(n, m, q)] * 2)
        gradient -= first.df / r2 * along.T @ along
        if first.reml:
            explained = (Q.T @ block).reshape(p, m, q)
            gradient -= np.einsum("pmq,pms->qs", explained, explained)
        gradients.append(gradient)
    return value, gradients


def gradient(Ds, X, y, Zs, codes, weights=None, reml=True, *, factors=None):
    """Symmetric matrices G_k with ``d criterion = sum_k trace(G_k dD_k)`` (see `criterion`).

    At an optimum of unrestricted covariances every G_k is positive semi-definite and G_k D_k = 0.
    The derivative in the entries of a factor F_k is ``2 G_k F_k``.
    """
    data = _rows(X, y, Zs, codes, weights, reml)
    inner = _by_rows(data, _inner_factors(data, Ds, factors))[1]
    result = []
    for part, matrix in zip(data.parts, inner, strict=True):
        basis = np.asarray(part.z_basis.coefficients_in(np.eye(len(matrix))), dtype=float)
        result.append(basis.T @ matrix @ basis)
    return result


# --- solution at given covariances ---------------------------------------------------------------
@dataclass(frozen=True)
class Solution:
    """Everything the mixed model equations give at the covariances (all in original units).

    `blups` holds an (m_k, q_k) array for every factor. In the joint covariances the effects are
    stacked factor by factor, level by level; `at` (k, level) are the places of one level's effects.
    ``conditional_covariance`` takes beta as known (lme4's condVar, but also between levels and
    factors). ``error_covariance`` is that of all ``b_hat - b`` and then ``beta_hat - beta``.
    """

    criterion: float
    s2: float
    beta: np.ndarray
    beta_covariance: np.ndarray
    blups: tuple[np.ndarray, ...]
    conditional_covariance: np.ndarray
    error_covariance: np.ndarray
    _data: _Rows = field(repr=False)
    _factors: list = field(repr=False)
    _root: np.ndarray = field(repr=False)
    _inner: np.ndarray = field(repr=False)

    def at(self, k, level):
        """Places of the effects of a level of factor ``k`` in the joint covariances."""
        sizes = [part.n_levels * part.Z.shape[1] for part in self._data.parts]
        q = self._data.parts[k].Z.shape[1]
        start = sum(sizes[:k]) + level * q
        return np.arange(start, start + q)

    def predict(self, x, zs, levels, weight=1.0):
        """Mean and error variance of a new observation.

        ``x`` (p,) and ``zs`` (one (q_k,) for every factor) are its rows, ``levels`` the codes of
        its levels, None for a level that is not in the data.
        """
        p = len(self.beta)
        row = np.zeros(len(self._inner), dtype=LD)
        basis = self._data.first.x_basis
        x = np.asarray(x, dtype=float)
        row[len(row) - p :] = basis.rows(x[None])[0]
        relative, start = 1 / LD(weight), 0
        for part, factor, z, level in zip(self._data.parts, self._factors, zs, levels, strict=True):
            effect = part.z_basis.rows(np.asarray(z, dtype=float)[None])[0] @ factor
            r = factor.shape[1]
            if level is None:
                relative += effect @ effect
            else:
                row[start + level * r : start + (level + 1) * r] = effect
            start += part.n_levels * r
        relative += np.sum((row @ self._root) ** 2)
        mean = row @ self._inner
        if basis.constant is not None:  # the response was centred
            mean += LD(self._data.first.y_shift) * x[basis.constant] / basis.value
        return float(mean), float(self.s2 * relative)


def solve(Ds, X, y, Zs, codes, weights=None, reml=True, *, factors=None):
    """Generalised least squares, BLUPs and their covariances (arguments of `criterion`)."""
    data = _rows(X, y, Zs, codes, weights, reml)
    inner = _inner_factors(data, Ds, factors)
    triangle = _dense_triangle(data, inner)
    value, s2 = _from_triangle(data.first, triangle)
    size = len(triangle) - 1 - data.n_fixed
    root = _solve_upper(triangle[:-1, :-1], np.eye(len(triangle) - 1, dtype=LD))
    solution = root @ triangle[:-1, -1]

    basis = data.first.x_basis
    beta = basis.coefficients_out(solution[size:, None])[:, 0]
    if basis.constant is not None:
        beta[basis.constant] += LD(data.first.y_shift) / basis.value
    rows, blups, start = [], [], 0
    for part, factor in zip(data.parts, inner, strict=True):
        outer, r = part.z_basis.coefficients_out(factor), factor.shape[1]
        blups.append(
            np.asarray(
                solution[start : start + part.n_levels * r].reshape(-1, r) @ outer.T, dtype=float
            )
        )
        for _ in range(part.n_levels):
            rows.append(outer @ root[start : start + r])
            start += r
    rows = np.vstack(rows)
    joint = np.vstack([rows, basis.coefficients_out(root[size:])])
    error = np.asarray(s2 * joint @ joint.T, dtype=float)
    return Solution(
        criterion=float(value),
        s2=float(s2),
        beta=beta.astype(float),
        beta_covariance=error[len(rows) :, len(rows) :],
        blups=tuple(blups),
        conditional_covariance=np.asarray(s2 * rows[:, :size] @ rows[:, :size].T, dtype=float),
        error_covariance=error,
        _data=data,
        _factors=inner,
        _root=root,
        _inner=solution,
    )


# --- objective and gradient for the search -------------------------------------------------------
def _value_and_gradients(data, factors):
    """Inner criterion (without the offset) and its gradients in the entries of the factors.

    The gradient of log|A'A| is 2 pinv(A)', that of the residual sum of squares -2 e c' (residual e,
    solution c); what is summed over levels is the part of it that belongs to the factor's entries.
    """
    blocks, tail = data.compressed()
    first, p = data.first, data.n_fixed
    rows = len(tail)
    data.evaluations += 1
    effects = np.hstack(
        [(block @ factor).reshape(rows, -1) for block, factor in zip(blocks, factors, strict=True)]
    )
    size = effects.shape[1]
    stacked = np.zeros((rows + size, size + p + 1))
    stacked[:rows, :size] = effects
    stacked[:rows, size:] = tail
    stacked[rows:, :size] = np.eye(size)
    Q, R = np.linalg.qr(stacked)
    diagonal = np.abs(np.diag(R))
    r2 = diagonal[-1] ** 2
    value = 2 * np.log(diagonal[: size + p if first.reml else size]).sum()
    value += first.df * (1 + np.log(2 * np.pi * r2 / first.df))

    inverse = scipy.linalg.solve_triangular(R[:-1, :-1], np.eye(size + p), check_finite=False)
    solution = inverse[:size] @ R[:-1, -1]
    residual = Q[:rows, -1] * R[-1, -1]
    used = size + p if first.reml else size
    dual = inverse[:size, :used] @ Q[:rows, :used].T
    gradients, start = [], 0
    for block, factor in zip(blocks, factors, strict=True):
        m, r = block.shape[1], factor.shape[1]
        mine = slice(start, start + m * r)
        start += m * r
        found = 2 * np.einsum("nmq,msn->qs", block, dual[mine].reshape(m, r, rows))
        along = np.tensordot(residual, block, 1)
        found -= 2 * first.df / r2 * along.T @ solution[mine].reshape(m, r)
        gradients.append(found)
    return value, gradients


class _SearchSeveral(_Search):
    """The criterion as a function of the free entries of all Lambda, one after the other."""

    def __init__(self, data, structures):
        self.data = data
        self.each = [
            _Search(part, structure, None)
            for part, structure in zip(data.parts, structures, strict=True)
        ]
        sizes = [len(one.theta(np.zeros((one.q, one.q)))) for one in self.each]
        self.cuts = np.cumsum(sizes)[:-1]

    def split(self, theta):
        return zip(self.each, np.split(theta, self.cuts), strict=True)

    def factor(self, theta):
        return [one.factor(mine) for one, mine in self.split(theta)]

    def theta(self, factors):
        pairs = zip(self.each, factors, strict=True)
        return np.concatenate([one.theta(factor) for one, factor in pairs])

    def theta_of(self, Ds):
        pairs = zip(self.each, Ds, strict=True)
        return np.concatenate([one.theta_of(D) for one, D in pairs])

    def __call__(self, theta):
        nowhere = 1e30, np.zeros(len(theta))
        if not np.isfinite(theta).all() or np.abs(theta).max() > 10 * BOUND:
            return nowhere
        value, gradients = _value_and_gradients(self.data, self.factor(theta))
        if not np.isfinite(value):
            return nowhere
        parts = [
            [np.trace(matrix)] if one.scalar else matrix[one.pattern]
            for one, matrix in zip(self.each, gradients, strict=True)
        ]
        return value, np.concatenate(parts)

    def descend_in_size(self, theta):
        """The size of each factor's Lambda alone, in logarithms: a way in from far off."""
        factors = self.factor(theta)

        def scaled(logs):
            moved = [np.exp(t) * factor for t, factor in zip(logs, factors, strict=True)]
            value, gradients = _value_and_gradients(self.data, moved)
            slopes = [np.sum(a * b) for a, b in zip(gradients, moved, strict=True)]
            return value, np.array(slopes)

        with np.errstate(all="ignore"):
            found = scipy.optimize.minimize(
                scaled,
                np.zeros(len(factors)),
                jac=True,
                method="L-BFGS-B",
                bounds=[(-14.0, 14.0)] * len(factors),
                options={"maxiter": 20},
            )
        moved = [np.exp(t) * factor for t, factor in zip(found.x, factors, strict=True)]
        return np.clip(self.theta(moved), -BOUND, BOUND)

    def away_from_zero(self, theta, value):
        """Let a variance of zero grow wherever that lowers the criterion.

        At a D without full rank the gradient in Lambda cannot tell; the one in D can. Returns the
        best point tried, and whether it is lower.
        """
        factors = self.factor(theta)
        Ds = [factor @ factor.T for factor in factors]
        gradients = _by_rows(self.data, factors)[1]
        best = (value, theta)
        for k, (one, matrix) in enumerate(zip(self.each, gradients, strict=True)):
            if one.scalar:
                directions = [np.eye(one.q)] if np.trace(matrix) < 0 else []
            elif one.pattern.all():
                values, vectors = np.linalg.eigh(matrix)
                chosen = vectors[:, values < 0].T
                directions = [np.outer(v, v) for v in chosen]
            else:
                directions = [np.diag(row) for row in np.eye(one.q)[np.diag(matrix) < 0]]
            for direction in directions:
                for size in 10.0 ** np.arange(-8, 3):
                    grown = Ds[k] + size * direction
                    moved = [grown if j == k else D for j, D in enumerate(Ds)]
                    trial = self.theta_of(moved)
                    trial_value = self.value(trial)
                    if trial_value < best[0]:
                        best = (trial_value, trial)
        return best[1], best[0], best[0] < value - 1e-9

    def slope(self, theta):
        """Steepest fall of the criterion for a unit change of an inner D."""
        falls = [0.0]
        gradients = _by_rows(self.data, self.factor(theta))[1]
        for one, matrix in zip(self.each, gradients, strict=True):
            if one.scalar:
                falls.append(-np.trace(matrix))
            elif one.pattern.all():
                falls.append(-np.linalg.eigvalsh(matrix)[0])
            else:
                falls.append(-np.diag(matrix).min())
        return float(max(falls))

    def polish(self, theta, value):
        """Newton steps, and away from zero, until nothing is gained."""
        theta, value = self.newton(theta, value)
        for _ in range(6):
            theta, value, is_lower = self.away_from_zero(theta, value)
            if not is_lower:
                break
            theta, value = self.newton(*self.descend(theta, "BFGS"))
        return theta, value


# --- the search ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class BestFit:
    """Best optimum found.

    ``Ds`` and ``factors`` (D = factor factor') are in the units of the Zs, relative to the noise
    variance ``s2``. ``n_reached`` of the ``n_starts`` descents ended in this optimum;
    ``local_optima`` are the criteria of the distinct optima, best first. ``at_bound``: an entry of
    Lambda ended at the bound, so that the optimum may lie at infinity. ``slope``: by how much the
    criterion falls for a unit change of D in the steepest direction that the structure allows, the
    columns of Z being of order one (zero or rounding error at an optimum).
    """

    criterion: float
    Ds: tuple[np.ndarray, ...]
    factors: tuple[np.ndarray, ...]
    s2: float
    local_optima: tuple[float, ...]
    n_reached: int
    n_starts: int
    at_bound: bool
    slope: float
    n_evaluations: int


def best_fit(
    X,
    y,
    Zs,
    codes,
    weights=None,
    reml=True,
    structures=None,
    n_starts=30,
    seed=0,
    starts=(),
):
    """Lowest criterion over the covariances of all factors by many independent descents.

    Parameters
    ----------
    X, y, Zs, codes, weights, reml
        As for `criterion`.
    structures : list of {"full", "diagonal", "scalar"} or chordal masks, one for every factor
        By default "full".
    n_starts : int
        Descents. The size of Lambda is between 1e-3 and 1e4 and drawn for every factor anew.
    starts : list of lists of (q_k, r_k) arrays
        Factors of the covariances to start from too: can this solution be lowered any further?
    """
    structures = structures or ["full"] * len(Zs)
    data = _rows(X, y, Zs, codes, weights, reml, structures)
    rng = np.random.Generator(np.random.PCG64(seed))
    search = _SearchSeveral(data, structures)

    def draw_factor(q, is_wild):
        size = 10.0 ** (rng.uniform(-3, 4) if is_wild else rng.uniform(-1.5, 1))
        own = 10.0 ** rng.uniform(-1, 1, size=q)
        factor = size * own[:, None] * rng.standard_normal((q, q)) if q > 1 else [[size]]
        return np.asarray(factor) if rng.uniform() < 0.7 else size * np.eye(q)

    handed = []
    for factors in starts:
        inner = [np.asarray(F, dtype=float) for F in _inner_factors(data, None, factors)]
        handed.append(search.theta_of([F @ F.T for F in inner]))
    ends = []
    for i in range(n_starts + len(handed)):
        if i >= n_starts:
            theta = handed[i - n_starts]
        elif i == 0:
            theta = search.theta([np.eye(one.q) for one in search.each])
        else:
            theta = search.theta([draw_factor(one.q, i % 3 > 0) for one in search.each])
            if i % 2:
                theta = search.descend_in_size(theta)
        theta, value = search.descend(theta, "L-BFGS-B" if i % 3 else "BFGS")
        ends.append((value, np.clip(theta, -BOUND, BOUND)))
    values = np.array([value for value, _ in ends])
    ends.sort(key=lambda pair: pair[0])

    # polish every distinct end; step away from it in all factors at once and fall back
    optima, seen = [], []
    for value, theta in ends:
        if any(abs(value - other) < SAME for other in seen):
            continue
        seen.append(value)
        theta, value = search.polish(theta, value)
        if len(seen) <= 3:
            for nudge in (1e-3, 1e-1):
                Ds = [factor @ factor.T for factor in search.factor(theta)]
                moved = [D + nudge * np.diag(np.maximum(np.diag(D), 1e-2)) for D in Ds]
                trial = search.polish(*search.descend(search.theta_of(moved), "BFGS"))
                if trial[1] < value:
                    theta, value = trial
        optima.append((value, theta))
    optima.sort(key=lambda pair: pair[0])

    # one factor after the other from scratch, the others as in the best
    value, theta = optima[0]
    best_factors = search.factor(theta)
    for k, one in enumerate(search.each):
        profile = []
        for size in [0.0, *10.0 ** np.arange(-3, 5)]:
            moved = [F if j != k else size * np.eye(one.q) for j, F in enumerate(best_factors)]
            profile.append((search.value(search.theta(moved)), search.theta(moved)))
        for i in range(1, len(profile) - 1):
            if profile[i][0] <= min(profile[i - 1][0], profile[i + 1][0]):
                found = search.polish(*search.descend(profile[i][1], "L-BFGS-B"))
                optima.append((found[1], found[0]))
    optima.sort(key=lambda pair: pair[0])
    value, theta = optima[0]
    distinct = [value]
    for other, at in optima:
        if other > distinct[-1] + SAME and search.is_optimum(at):
            distinct.append(other)

    outer = tuple(
        np.asarray(part.z_basis.coefficients_out(factor), dtype=float)
        for part, factor in zip(data.parts, search.factor(theta), strict=True)
    )
    final = _rows(X, y, Zs, codes, weights, reml)
    exact, s2 = _from_triangle(
        final.first, _dense_triangle(final, _inner_factors(final, None, outer))
    )
    return BestFit(
        criterion=float(exact),
        Ds=tuple(factor @ factor.T for factor in outer),
        factors=outer,
        s2=float(s2),
        local_optima=tuple(float(v + float(data.first.offset)) for v in distinct),
        n_reached=int(np.sum(values < value + SAME)),
        n_starts=len(values),
        at_bound=bool(np.abs(theta).max() >= 0.99 * BOUND),
        slope=search.slope(theta),
        n_evaluations=data.evaluations,
    )
