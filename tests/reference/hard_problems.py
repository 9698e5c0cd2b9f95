"""Small data sets on which optimisers of mixed models go wrong, one for every seed.

The data are drawn with integers, standard normals and uniforms of PCG64 alone and put together by
elementwise arithmetic (scales are a uniform in [1, 2) times a power of two), so a seed gives the
same numbers on every platform. `fingerprint` guards that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

FAMILIES = (
    "random intercept",
    "regular slopes",
    "ill-scaled covariates",
    "a variance of zero",
    "rank one",
    "no random effects",
    "tiny variances",
    "large variances",
    "few levels",
    "levels of one row",
    "three or four effects",
    "integer time",
    "covariate of the level",
    "weights",
    "no intercept",
    "diagonal",
    "scalar",
    "mask",
    "response far from zero",
    "unbalanced",
)
"""Seed ``s`` belongs to family ``s % 20``; the traits of other families are mixed in at random."""


@dataclass(frozen=True, eq=False)
class HardProblem:
    """Data and model; column positions refer to ``X``, which has no intercept column.

    ``covariance`` is "full", "diagonal", "scalar" or a boolean mask (q, q) of the free entries of
    D; the effects are the intercept (if ``random_intercept``), then ``slopes`` in their order.
    """

    seed: int
    kind: str
    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    sample_weight: np.ndarray | None
    slopes: tuple[int, ...]
    covariance: str | np.ndarray
    fixed_effects: tuple[int, ...]
    random_intercept: bool
    fit_intercept: bool
    reml: bool

    @property
    def n_effects(self):
        return len(self.slopes) + self.random_intercept

    def matrices(self):
        """Fixed columns (n, p), random-effect columns (n, q), codes (n,)."""
        one = np.ones((len(self.y), 1))
        X = self.X[:, list(self.fixed_effects)]
        Z = self.X[:, list(self.slopes)]
        if self.fit_intercept:
            X = np.hstack([one, X])
        if self.random_intercept:
            Z = np.hstack([one, Z])
        return X, Z, np.unique(self.groups, return_inverse=True)[1]

    def fingerprint(self):
        """sha256 over the data, rounded to ten significant digits, and the model."""
        parts = [self.kind, repr((self.slopes, self.fixed_effects, self.random_intercept))]
        parts += [repr((self.fit_intercept, self.reml)), repr(np.asarray(self.covariance).tolist())]
        parts += [str(label) for label in self.groups.tolist()]
        for array in (self.X.ravel(), self.y, self.sample_weight):
            parts += [] if array is None else [f"{value:.9e}" for value in array.tolist()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _magnitude(rng, low, high):
    """Between 2^low and 2^(high + 1), about log-uniform, exactly reproducible."""
    return float(np.ldexp(rng.uniform(1.0, 2.0), int(rng.integers(low, high + 1))))


def _chance(rng, probability):
    return bool(rng.uniform() < probability)


def _sizes(rng, family, q, p):
    """Rows of each level: enough that the noise is identified beside all effects."""
    few = family == "few levels" or _chance(rng, 0.1)
    m = int(rng.integers(2, 6)) if few else int(rng.integers(6, 41))
    while True:
        if family == "levels of one row":
            sizes = rng.integers(3, 13, size=m)
            sizes[: max(1, m // 2)] = 1
        elif family == "unbalanced":
            sizes = rng.integers(1, 4, size=m)
            sizes[: max(1, m // 5)] = 15
        elif _chance(rng, 0.2):
            sizes = np.full(m, int(rng.integers(2, 13)))
        else:
            sizes = rng.integers(1, 16, size=m)
        spare = int(sizes.sum()) - int(np.minimum(sizes, q).sum()) - p
        if spare >= 3 and int(sizes.sum()) >= m + p + 3:
            return sizes
        m = min(40, m + 1)


def _covariate(rng, kind, codes, time):
    """A standardised covariate: order one, not exactly centred."""
    m = int(codes.max()) + 1
    if kind == "time":
        return time.astype(float)
    if kind == "level":
        return rng.standard_normal(m)[codes]
    if kind == "binary level":
        return rng.integers(0, 2, size=m)[codes].astype(float)
    if kind == "binary":
        return rng.integers(0, 2, size=len(codes)).astype(float)
    if kind == "between and within":
        return rng.standard_normal(m)[codes] + 0.3 * rng.standard_normal(len(codes))
    return rng.standard_normal(len(codes))


def _true_factor(rng, family, q):
    """(q, q) factor of the true relative covariance, on standardised covariates."""
    factor = np.tril(rng.standard_normal((q, q)))
    for j in range(q):
        factor[j] *= _magnitude(rng, -2, 1)
    trait = family
    if family in ("ill-scaled covariates", "few levels", "weights", "integer time", "unbalanced"):
        pick = int(rng.integers(5))
        trait = ("a variance of zero", "rank one", "large variances", "tiny variances", "")[pick]
    if trait == "a variance of zero":
        factor[int(rng.integers(q))] = 0.0
    elif trait == "rank one":
        factor[:, 1:] = 0.0
    elif trait == "no random effects":
        factor[:] = 0.0
    elif trait == "tiny variances":
        factor *= _magnitude(rng, -10, -4)
    elif trait == "large variances":
        factor *= _magnitude(rng, 4, 6)
    return factor


def _mask(rng, q):
    """A chordal pattern with at least one zero and one covariance (q = 3 or 4)."""
    while True:
        mask = np.eye(q, dtype=bool)
        for i in range(q):
            for j in range(i):
                mask[i, j] = mask[j, i] = _chance(rng, 0.5)
        free = (int(mask.sum()) - q) // 2
        cycle = q == 4 and free == 4 and (mask.sum(axis=0) == 3).all()
        if 0 < free < q * (q - 1) // 2 and not cycle:
            return mask


def _draw(rng, seed):
    family = FAMILIES[seed % len(FAMILIES)]
    kind = [family]

    # the model
    if family == "random intercept":
        n_slopes, random_intercept = 0, True
    elif family in ("three or four effects", "mask"):
        n_slopes, random_intercept = int(rng.integers(2, 4)), True
        if n_slopes == 3 and _chance(rng, 0.15):
            random_intercept = False
    else:
        n_slopes = 1 if _chance(rng, 0.65) else int(rng.integers(1, 4))
        random_intercept = not _chance(rng, 0.5 if family == "no intercept" else 0.06)
    q = n_slopes + random_intercept
    k = max(1, n_slopes + int(rng.integers(0, 3)))
    covariance = "full"
    if family in ("diagonal", "scalar"):
        covariance = family
    elif family == "mask" or (q >= 3 and _chance(rng, 0.1)):
        covariance = _mask(rng, q)
    elif q >= 2 and _chance(rng, 0.15):
        covariance = "diagonal" if _chance(rng, 0.6) else "scalar"
    fit_intercept = not (_chance(rng, 0.6) if family == "no intercept" else _chance(rng, 0.04))
    slopes = tuple(int(j) for j in rng.permutation(k)[:n_slopes])
    fixed_effects = tuple(range(k))
    if k > 1 and _chance(rng, 0.1):
        dropped = int(rng.integers(k))
        fixed_effects = tuple(j for j in range(k) if j != dropped)
    p = len(fixed_effects) + fit_intercept
    reml = _chance(rng, 0.6)

    # rows
    sizes = _sizes(rng, family, q, p)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    time = np.concatenate([np.arange(size) for size in sizes])
    n = len(codes)

    # covariates: standardised, and as the model sees them
    ill = family == "ill-scaled covariates" or _chance(rng, 0.4)
    standard, seen = np.empty((n, k)), np.empty((n, k))
    offsets = np.zeros(k)
    used_time = False
    for j in range(k):
        draw = rng.uniform()
        which = "plain"
        if not used_time and (draw < 0.1 or (family == "integer time" and j in slopes)):
            which, used_time = "time", True
        elif draw < 0.25 or (family == "covariate of the level" and j == 0):
            which = ("level", "binary level", "binary", "between and within")[int(rng.integers(4))]
            if family == "covariate of the level" and j == 0:
                which = "level" if which != "binary level" else which
        standard[:, j] = _covariate(rng, which, codes, time)
        if ill and (which != "time" or _chance(rng, 0.3)):
            if _chance(rng, 0.6):
                offsets[j] = _magnitude(rng, 0, 12) * (1 if _chance(rng, 0.5) else -1)
            seen[:, j] = (standard[:, j] + offsets[j]) * _magnitude(rng, -20, 19)
        else:
            seen[:, j] = standard[:, j]
    if ill:
        kind.append("scaled and shifted")

    weights = None
    if family == "weights" or _chance(rng, 0.15):
        weights = np.array([_magnitude(rng, -3, 3) for _ in range(n)])
        kind.append("weighted")

    # response
    factor = _true_factor(rng, family, q)
    named = covariance if isinstance(covariance, str) else "mask"
    if named == "diagonal":
        factor = np.diag(np.diag(factor))
    elif named == "scalar":
        factor = np.eye(q) * factor[0, 0]
    normals = rng.standard_normal((len(sizes), q))
    y = rng.standard_normal(n)
    if weights is not None:
        y = y / np.sqrt(weights)
    own_units = named != "full" and _chance(rng, 0.5)
    names = ([-1] if random_intercept else []) + list(slopes)
    for a, j in enumerate(names):
        effect = np.zeros(len(sizes))
        for b in range(q):
            effect = effect + factor[a, b] * normals[:, b]
        column = np.ones(n) if j < 0 else standard[:, j]
        if j >= 0 and own_units:
            column = (column + offsets[j]) / (1.0 + abs(offsets[j]))
        y = y + effect[codes] * column
    for j in fixed_effects:
        y = y + float(rng.standard_normal()) * standard[:, j]
    if fit_intercept and (family == "response far from zero" or _chance(rng, 0.1)):
        largest = max(1.0, float(np.abs(factor).max()))
        y = y + _magnitude(rng, 8, 17) * largest
        kind.append("offset")
    y = y * _magnitude(rng, -7, 7)

    shuffled = rng.permutation(n)
    labels = rng.permutation(1000)[: len(sizes)]
    if _chance(rng, 0.5):
        labels = np.array([f"g{label}" for label in labels])
    kind += ["REML" if reml else "ML", f"q={q}", f"m={len(sizes)}", f"n={n}"]
    kind.append(named)
    return HardProblem(
        seed=seed,
        kind=", ".join(kind),
        X=seen[shuffled],
        y=y[shuffled],
        groups=labels[codes][shuffled],
        sample_weight=None if weights is None else weights[shuffled],
        slopes=slopes,
        covariance=covariance,
        fixed_effects=fixed_effects,
        random_intercept=random_intercept,
        fit_intercept=fit_intercept,
        reml=reml,
    )


def _full_rank(columns, limit):
    """Are columns (each scaled to length one) independent, smallest singular value above limit?"""
    length = np.sqrt((columns**2).sum(axis=0))
    if not columns.size or (length == 0).any():
        return not columns.size
    return bool(np.linalg.svd(columns / length, compute_uv=False)[-1] > limit)


def is_estimable(problem):
    """Fixed and random columns independent, three spare rows beside all effects."""
    X, Z, codes = problem.matrices()
    sizes = np.bincount(codes)
    n, p = X.shape
    if n - int(np.minimum(sizes, Z.shape[1]).sum()) - p < 3 or n < len(sizes) + p + 3:
        return False
    for columns, constant in ((X, problem.fit_intercept), (Z, problem.random_intercept)):
        if constant:
            rest = columns[:, 1:]
            good = _full_rank(rest - rest.mean(axis=0), 1e-3)
            varies = rest.std(axis=0) > 1e-9 * np.abs(rest).max(axis=0, initial=0.0)
            good = good and bool(varies.all())
        else:
            good = _full_rank(columns, 2e-5)
        if not good:
            return False
    return True


def hard_problem(seed):
    """The problem of this seed; problems that are not estimable are drawn again."""
    rng = np.random.Generator(np.random.PCG64([20240517, seed]))
    while True:
        problem = _draw(rng, seed)
        if is_estimable(problem):
            return problem
