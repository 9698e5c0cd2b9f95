"""Small data sets with two to four grouping factors on which optimisers go wrong, one a seed.

They are drawn as those of `hard_problems` are: integers, standard normals and uniforms of PCG64 and
elementwise arithmetic alone, so a seed gives the same numbers everywhere; `fingerprint` guards it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from reference.hard_problems import _chance, _covariate, _full_rank, _magnitude

FAMILIES = (
    "fully crossed",
    "partly crossed",
    "sparse and unbalanced",
    "nested",
    "nested three deep",
    "nested and crossed",
    "disconnected",
    "two levels",
    "the same partition twice",
    "one row in each level",
    "mostly one row",
    "three factors",
    "four factors",
    "a variance of zero",
    "several variances of zero",
    "no random effects",
    "large ratios",
    "tiny variances",
    "slopes in one factor",
    "slopes in every factor",
    "ill-scaled slopes",
    "rank one",
    "diagonal",
    "scalar",
    "weights",
    "no fixed effects",
    "covariates of the level",
    "response far from zero",
)
"""Seed ``s < 280`` is of family ``s % 28``; the traits of other families are mixed in at random."""

FEW_ROWS = "few rows and several optima"
SEVERAL_OPTIMA = (19, 20, 41, 116, 122, 141, 264, 265, 276, 282, 344, 454, 526, 532)
"""The seeds from 280: draws of few rows that were kept because the criterion has several optima."""

N_REGULAR = 10 * len(FAMILIES)
N_PROBLEMS = N_REGULAR + len(SEVERAL_OPTIMA)
MOST_EFFECTS = 90
MOST_ROWS = 200


@dataclass(frozen=True, eq=False)
class CrossedProblem:
    """Data and model; column positions refer to ``X``, which has no intercept column.

    The dicts have the names of the factors for keys, all in the same order. The effects of a level
    are the intercept (if ``random_intercept``), then ``slopes`` in their order. Where
    ``is_identified`` is false other covariances and another noise variance have the same
    likelihood, so that only the criterion can be compared.
    """

    seed: int
    kind: str
    X: np.ndarray
    y: np.ndarray
    groups: dict[str, np.ndarray]
    sample_weight: np.ndarray | None
    slopes: dict[str, tuple[int, ...]]
    random_intercept: dict[str, bool]
    covariance: dict[str, str]
    fixed_effects: tuple[int, ...]
    fit_intercept: bool
    reml: bool
    is_identified: bool = True

    def matrices(self):
        """Fixed columns (n, p); lists of random-effect columns (n, q) and codes (n,)."""
        one = np.ones((len(self.y), 1))
        X = self.X[:, list(self.fixed_effects)]
        if self.fit_intercept:
            X = np.hstack([one, X])
        Zs = []
        for name in self.groups:
            Z = self.X[:, list(self.slopes[name])]
            Zs.append(np.hstack([one, Z]) if self.random_intercept[name] else Z)
        codes = [np.unique(labels, return_inverse=True)[1] for labels in self.groups.values()]
        return X, Zs, codes

    def data(self):
        """The arguments of `brute_force_several.criterion` after the covariances."""
        X, Zs, codes = self.matrices()
        return X, self.y, Zs, codes, self.sample_weight, self.reml

    def fingerprint(self):
        """sha256 over the data, rounded to ten significant digits, and the model."""
        parts = [self.kind, repr((self.slopes, self.fixed_effects, self.random_intercept))]
        parts += [repr((self.fit_intercept, self.reml, self.covariance))]
        for labels in self.groups.values():
            parts += [str(label) for label in labels.tolist()]
        for array in (self.X.ravel(), self.y, self.sample_weight):
            parts += [] if array is None else [f"{value:.9e}" for value in array.tolist()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# --- layouts: which levels a row has -------------------------------------------------------------
def _compact(codes):
    return np.unique(codes, return_inverse=True)[1]


def _skewed(rng, m, n):
    """Levels drawn with a few that are frequent and many that are rare."""
    return np.floor(m * rng.uniform(size=n) * rng.uniform(size=n)).astype(int)


def _grid(rng, n_factors):
    """Every combination of levels equally often."""
    sizes = rng.integers(3, 8 if n_factors == 2 else 5, size=n_factors)
    cells = np.indices(tuple(sizes)).reshape(n_factors, -1)
    times = int(rng.integers(1, 1 + max(1, min(4, MOST_ROWS // cells.shape[1]))))
    return list(np.repeat(cells, times, axis=1))


def _partly(rng, n_factors):
    n = int(rng.integers(25, 141))
    return [rng.integers(0, int(rng.integers(3, 19)), size=n) for _ in range(n_factors)]


def _sparse(rng, n_factors):
    n = int(rng.integers(30, 121))
    return [_skewed(rng, int(rng.integers(4, 31)), n) for _ in range(n_factors)]


def _few(rng, n_factors):
    n = int(rng.integers(15, 31))
    return [rng.integers(0, int(rng.integers(2, 7)), size=n) for _ in range(n_factors)]


def _nested(rng, depth):
    """Levels within levels within ..., each of several rows; unbalanced or not."""
    balanced = _chance(rng, 0.3)
    codes = [np.arange(int(rng.integers(3, 9 if depth == 2 else 6)))]
    for _ in range(depth):  # the last time the rows themselves
        parents = len(codes[-1])
        most = 4 if depth == 2 else 3
        times = np.full(parents, int(rng.integers(2, most + 1)))
        if not balanced:
            times = rng.integers(1, most + 2, size=parents)
        codes = [np.repeat(code, times) for code in codes]
        codes.append(np.arange(len(codes[0])))
    return codes[:depth]


def _islands(rng):
    """Two factors crossed within components that share no level."""
    first, second = [], []
    for island in range(int(rng.integers(2, 5))):
        size = int(rng.integers(8, 31))
        first.append(10 * island + rng.integers(0, int(rng.integers(1, 6)), size=size))
        second.append(10 * island + rng.integers(0, int(rng.integers(1, 6)), size=size))
    return [np.concatenate(first), np.concatenate(second)]


def _layout(rng, family):
    """Codes of every factor."""
    pick = int(rng.integers(3))
    plain = (_grid, _partly, _sparse)[pick]
    if family == "fully crossed":
        codes = _grid(rng, 2 if _chance(rng, 0.7) else 3)
    elif family == "partly crossed":
        codes = _partly(rng, 2)
    elif family == "sparse and unbalanced":
        codes = _sparse(rng, 2)
    elif family == "nested":
        codes = _nested(rng, 2)
    elif family == "nested three deep":
        codes = _nested(rng, 3)
    elif family == "nested and crossed":
        codes = _nested(rng, 2)
        codes.append(rng.integers(0, int(rng.integers(3, 10)), size=len(codes[0])))
    elif family == "disconnected":
        codes = _islands(rng)
    elif family == "two levels":
        codes = plain(rng, 2)
        codes[int(rng.integers(2))] = rng.integers(0, 2, size=len(codes[0]))
    elif family == "the same partition twice":
        codes = plain(rng, 2 if _chance(rng, 0.6) else 3)
        codes[1] = codes[0]
    elif family == "one row in each level":
        codes = plain(rng, 2)
        codes.insert(int(rng.integers(3)), np.arange(len(codes[0])))
        if _chance(rng, 0.5):
            del codes[-1 if len(np.unique(codes[-1])) < len(codes[0]) else 0]
    elif family == "mostly one row":
        codes = plain(rng, 2)
        n = len(codes[0])
        rare = np.arange(n)
        rare[: n - n // 3] = rng.integers(0, 6, size=n - n // 3)
        codes[int(rng.integers(2))] = rng.permutation(rare)
    elif family == "three factors":
        codes = plain(rng, 3)
    elif family == "four factors":
        codes = (_partly if _chance(rng, 0.5) else _sparse)(rng, 4)
    elif family == FEW_ROWS:
        codes = _few(rng, 2 if _chance(rng, 0.6) else 3)
    elif pick == 0 and _chance(rng, 0.4):
        codes = _nested(rng, 2)
    else:
        codes = plain(rng, 2 if _chance(rng, 0.75) else 3)
    return [_compact(code) for code in codes]


# --- the model -----------------------------------------------------------------------------------
def _true_factors(rng, family, sizes):
    """(q, q) factors of the true relative covariances, on standardised covariates."""
    factors = []
    for q in sizes:
        factor = np.tril(rng.standard_normal((q, q)))
        for j in range(q):
            factor[j] *= _magnitude(rng, -2, 1)
        factors.append(factor)
    trait = family
    mixed = ("slopes in one factor", "slopes in every factor", "ill-scaled slopes", "weights")
    mixed += (FEW_ROWS,)
    if family in mixed or _chance(rng, 0.25):
        traits = ("a variance of zero", "large ratios", "tiny variances", "rank one", family)
        trait = traits[int(rng.integers(5))]
    chosen = int(rng.integers(len(factors)))
    if family == "no random effects":
        factors = [0.0 * factor for factor in factors]
    elif trait == "a variance of zero":
        rows = slice(None) if _chance(rng, 0.5) else int(rng.integers(sizes[chosen]))
        factors[chosen][rows] = 0.0
    elif trait == "several variances of zero":
        for k in rng.permutation(len(factors))[: max(2, len(factors) - 1)]:
            rows = slice(None) if _chance(rng, 0.7) else int(rng.integers(sizes[k]))
            factors[k][rows] = 0.0
    elif trait == "large ratios":  # of variances, about 1e4
        factors[chosen] *= _magnitude(rng, 5, 6)
        if _chance(rng, 0.3):
            for k, factor in enumerate(factors):
                factor *= _magnitude(rng, 4, 6) if k != chosen else 1.0
    elif trait == "tiny variances":
        factors[chosen] *= _magnitude(rng, -10, -3)
        if _chance(rng, 0.3):
            factors = [factor * _magnitude(rng, -8, -4) for factor in factors]
    elif trait == "rank one":
        for factor in factors:
            factor[:, 1:] = 0.0
    return factors


def _draw(rng, seed, family):
    kind = [family]
    codes = _layout(rng, family)
    n, n_factors = len(codes[0]), len(codes)
    names = [chr(ord("a") + k) for k in range(n_factors)]

    # the model
    slope_families = ("slopes in one factor", "slopes in every factor", "ill-scaled slopes")
    slope_families += ("rank one", "diagonal", "scalar", FEW_ROWS)
    has_slopes = family in slope_families or _chance(rng, 0.15)
    n_slopes = [0] * n_factors
    if has_slopes:
        one = int(rng.integers(n_factors))
        for k in range(n_factors):
            if k == one or family == "slopes in every factor" or _chance(rng, 0.2):
                n_slopes[k] = 1 if _chance(rng, 0.75) else 2
    if family == "one row in each level":
        n_slopes = [
            0 if code.max() + 1 == n else count for code, count in zip(codes, n_slopes, strict=True)
        ]
    both = family in ("rank one", "diagonal", "scalar")
    intercepts = [count == 0 or both or not _chance(rng, 0.08) for count in n_slopes]
    sizes = [a + b for a, b in zip(n_slopes, intercepts, strict=True)]
    covariances = []
    for q in sizes:
        covariance = "full"
        if family in ("diagonal", "scalar"):
            covariance = family if q > 1 or _chance(rng, 0.5) else "full"
        elif q > 1 and _chance(rng, 0.2):
            covariance = "diagonal" if _chance(rng, 0.6) else "scalar"
        covariances.append(covariance)
    bare = family == "no fixed effects"
    fit_intercept = not _chance(rng, 0.6 if bare else 0.04)
    n_columns = max(n_slopes)
    if not bare:
        n_columns = max(n_columns, int(rng.integers(0, 4)))
    if family == "covariates of the level":
        n_columns = max(n_columns, 1)
    slopes = [tuple(int(j) for j in rng.permutation(n_columns)[:count]) for count in n_slopes]
    fixed_effects = () if bare else tuple(range(n_columns))
    if len(fixed_effects) > 1 and _chance(rng, 0.15):
        dropped = int(rng.integers(n_columns))
        fixed_effects = tuple(j for j in range(n_columns) if j != dropped)
    reml = _chance(rng, 0.6)

    # covariates: standardised, and as the model sees them
    ill = family == "ill-scaled slopes" or _chance(rng, 0.2)
    standard, seen = np.empty((n, n_columns)), np.empty((n, n_columns))
    offsets = np.zeros(n_columns)
    for j in range(n_columns):
        which = "plain"
        if _chance(rng, 0.7 if family == "covariates of the level" else 0.15):
            which = ("level", "binary level", "binary", "between and within")[int(rng.integers(4))]
        standard[:, j] = _covariate(rng, which, codes[int(rng.integers(n_factors))], None)
        seen[:, j] = standard[:, j]
        if ill:
            if _chance(rng, 0.6):
                offsets[j] = _magnitude(rng, 0, 9) * (1 if _chance(rng, 0.5) else -1)
            seen[:, j] = (standard[:, j] + offsets[j]) * _magnitude(rng, -15, 14)
    if ill and n_columns:
        kind.append("scaled and shifted")

    weights = None
    if family == "weights" or (family != "one row in each level" and _chance(rng, 0.12)):
        weights = np.array([_magnitude(rng, -3, 3) for _ in range(n)])
        kind.append("weighted")

    # response
    factors = _true_factors(rng, family, sizes)
    y = rng.standard_normal(n)
    if weights is not None:
        y = y / np.sqrt(weights)
    largest = 1.0
    for k, code in enumerate(codes):
        factor, q = factors[k], sizes[k]
        if covariances[k] == "diagonal":
            factor = np.diag(np.diag(factor))
        elif covariances[k] == "scalar":
            factor = np.eye(q) * factor[0, 0]
        largest = max(largest, float(np.abs(factor).max()))
        own_units = covariances[k] != "full" and _chance(rng, 0.5)
        normals = rng.standard_normal((int(code.max()) + 1, q))
        columns = ([-1] if intercepts[k] else []) + list(slopes[k])
        for a, j in enumerate(columns):
            effect = np.zeros(len(normals))
            for b in range(q):
                effect = effect + factor[a, b] * normals[:, b]
            column = np.ones(n) if j < 0 else standard[:, j]
            if j >= 0 and own_units:
                column = (column + offsets[j]) / (1.0 + abs(offsets[j]))
            y = y + effect[code] * column
    for j in fixed_effects:
        y = y + float(rng.standard_normal()) * standard[:, j]
    if fit_intercept and (family == "response far from zero" or _chance(rng, 0.06)):
        y = y + _magnitude(rng, 8, 15) * largest
        kind.append("offset")
    y = y * _magnitude(rng, -7, 7)

    shuffled = rng.permutation(n)
    groups = {}
    for name, code in zip(names, codes, strict=True):
        labels = rng.permutation(1000)[: int(code.max()) + 1]
        if _chance(rng, 0.5):
            labels = np.array([f"{name}{label}" for label in labels])
        groups[name] = labels[code][shuffled]
    kind += ["REML" if reml else "ML", f"n={n}", f"p={len(fixed_effects) + fit_intercept}"]
    kind.append("m=" + "+".join(str(int(code.max()) + 1) for code in codes))
    if max(sizes) > 1:
        kind.append("q=" + "+".join(str(q) for q in sizes))
        kind.append("+".join(covariances))
    return CrossedProblem(
        seed=seed,
        kind=", ".join(kind),
        X=seen[shuffled],
        y=y[shuffled],
        groups=groups,
        sample_weight=None if weights is None else weights[shuffled],
        slopes=dict(zip(names, slopes, strict=True)),
        random_intercept=dict(zip(names, intercepts, strict=True)),
        covariance=dict(zip(names, covariances, strict=True)),
        fixed_effects=fixed_effects,
        fit_intercept=fit_intercept,
        reml=reml,
    )


# --- what can be estimated -----------------------------------------------------------------------
def _centred(columns, constant):
    """Columns after the constant one less their means, all of root mean square one."""
    columns = columns.copy()
    if constant:
        columns[:, 1:] -= columns[:, 1:].mean(axis=0)
    return columns / np.sqrt((columns**2).mean(axis=0)).clip(1e-300)


def _expand(Z, codes):
    n, q = Z.shape
    wide = np.zeros((n, int(codes.max()) + 1, q))
    wide[np.arange(n), codes] = Z
    return wide.reshape(n, -1)


def _directions(problem):
    """(n, n) derivatives of the covariance of the rows in each variance component, noise first."""
    _, Zs, codes = problem.matrices()
    weights = problem.sample_weight
    directions = [np.eye(len(problem.y)) if weights is None else np.diag(1.0 / weights)]
    for name, Z, code in zip(problem.groups, Zs, codes, strict=True):
        structure, q = problem.covariance[name], Z.shape[1]
        columns = _centred(Z, problem.random_intercept[name] and structure == "full")
        wide = _expand(columns, code).reshape(len(Z), -1, q)
        each = np.einsum("nma,kmb->abnk", wide, wide)
        if structure == "scalar":  # in the units in which the variances are equal
            raw = _expand(Z / np.sqrt((Z**2).mean()), code)
            directions.append(raw @ raw.T)
            continue
        full = structure == "full"
        pairs = [(a, b) for a in range(q) for b in range(a + 1) if full or a == b]
        directions += [each[a, b] + each[b, a] for a, b in pairs]
    return directions


def is_identified(problem):
    """Has every covariance of the rows (of their error contrasts in REML) one D and one s2?"""
    X = problem.matrices()[0]
    directions = _directions(problem)
    if problem.reml and X.shape[1]:
        Q = np.linalg.qr(_centred(X, problem.fit_intercept), mode="complete")[0]
        free = Q[:, X.shape[1] :]
        directions = [free.T @ direction @ free for direction in directions]
    flat = np.array([direction.ravel() for direction in directions])
    sizes = np.sqrt((flat**2).sum(axis=1))
    if (sizes < 1e-8 * sizes.max()).any():
        return False
    return bool(np.linalg.svd(flat / sizes[:, None], compute_uv=False)[-1] > 1e-6)


def is_estimable(problem):
    """Fixed and random columns independent; three rows to spare beside all effects.

    The levels of a factor with one row each count for nothing: they are one more noise.
    """
    X, Zs, codes = problem.matrices()
    n, p = X.shape
    levels = [int(code.max()) + 1 for code in codes]
    total = sum(m * Z.shape[1] for m, Z in zip(levels, Zs, strict=True))
    if not 15 <= n <= MOST_ROWS or min(levels) < 2 or n < p + 3:
        return False
    if total - n * (n in levels) > MOST_EFFECTS or total > 2 * MOST_EFFECTS:
        return False
    columns = [_centred(X, problem.fit_intercept)]
    constants = [problem.fit_intercept, *problem.random_intercept.values()]
    for part, constant in zip([X, *Zs], constants, strict=True):
        if constant:
            rest = part[:, 1:]
            varies = rest.std(axis=0) > 1e-9 * np.abs(rest).max(axis=0, initial=0.0)
            if not varies.all() or not _full_rank(rest - rest.mean(axis=0), 1e-3):
                return False
        elif not _full_rank(part, 2e-5):
            return False
    for name, m, Z, code in zip(problem.groups, levels, Zs, codes, strict=True):
        if m < n:
            columns.append(_expand(_centred(Z, problem.random_intercept[name]), code))
        elif problem.sample_weight is not None:
            return False
    return bool(np.linalg.matrix_rank(np.hstack(columns), tol=1e-8) <= n - 3)


def crossed_problem(seed):
    """The problem of this seed; problems that are not estimable are drawn again."""
    if seed < N_REGULAR:
        family, number = FAMILIES[seed % len(FAMILIES)], seed
    else:
        family, number = FEW_ROWS, 1000 + SEVERAL_OPTIMA[seed - N_REGULAR]
    rng = np.random.Generator(np.random.PCG64([20250211, number]))
    while True:
        problem = _draw(rng, seed, family)
        if is_estimable(problem):
            identified = is_identified(problem)
            kind = problem.kind + ("" if identified else ", not identified")
            return CrossedProblem(**{**vars(problem), "kind": kind, "is_identified": identified})
