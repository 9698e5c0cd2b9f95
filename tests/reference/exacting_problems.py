"""Small data sets that cost digits, one for every seed.

One to three grouping factors, few levels, up to four effects, columns that are nearly collinear,
far from zero or of very different sizes, weights of very different sizes, variances of zero, a
response that the fixed effects or the random effects explain almost completely. They are drawn as
those of `hard_problems` are: integers, standard normals and uniforms of PCG64 and elementwise
arithmetic alone, so a seed gives the same numbers everywhere; `fingerprint` guards it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from reference.extended import Rows
from reference.hard_problems import _chance, _magnitude

N_PROBLEMS = 300
MOST_ROWS = 64


@dataclass(frozen=True, eq=False)
class ExactingProblem:
    """Data and model; a factor has the effects of the constant, then of ``slopes``, in their order.

    ``covariance`` is "full", "diagonal" or "scalar", for every factor; all columns of X and the
    constant have a fixed effect.
    """

    seed: int
    kind: str
    X: np.ndarray
    y: np.ndarray
    codes: tuple[np.ndarray, ...]
    sample_weight: np.ndarray | None
    slopes: tuple[tuple[int, ...], ...]
    covariance: tuple[str, ...]
    reml: bool

    @property
    def names(self):
        return [f"f{k}" for k in range(len(self.codes))]

    def matrices(self):
        """Fixed columns (n, p); for every factor random columns (n, q)."""
        one = np.ones((len(self.y), 1))
        Zs = [np.hstack([one, self.X[:, list(own)]]) for own in self.slopes]
        return np.hstack([one, self.X]), Zs

    def rows(self):
        """The rows in eighty digits."""
        X, Zs = self.matrices()
        factors = list(zip(Zs, self.codes, strict=True))
        return Rows(X, self.y, factors, self.sample_weight, self.reml)

    def fingerprint(self):
        """sha256 over the data, rounded to ten significant digits, and the model."""
        parts = [self.kind, repr((self.slopes, self.covariance, self.reml))]
        parts += [repr(own.tolist()) for own in self.codes]
        for array in (self.X.ravel(), self.y, self.sample_weight):
            parts += [] if array is None else [f"{value:.9e}" for value in array.tolist()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _layout(rng, n_factors):
    """Codes of every factor: nested, crossed, or drawn at random."""
    m = int(rng.integers(2, 9))
    size = int(rng.integers(3, 11))
    first = np.repeat(np.arange(m), size)[:MOST_ROWS]
    codes = [first]
    for _ in range(n_factors - 1):
        own = int(rng.integers(2, 6))
        if _chance(rng, 0.4):
            inner = rng.integers(0, 2, size=len(first))
            codes.append(codes[-1] * 2 + inner)
        elif _chance(rng, 0.5):
            codes.append(np.arange(len(first)) % own)
        else:
            codes.append(rng.integers(0, own, size=len(first)))
    kept = np.arange(len(first))
    if _chance(rng, 0.5):
        kept = rng.permutation(len(first))[: max(12, int(0.85 * len(first)))]
    return [np.unique(own[kept], return_inverse=True)[1] for own in codes]


def _columns(rng, n, kind):
    """Columns of X; some nearly collinear with the one before, some far from zero."""
    k = int(rng.integers(1, 5))
    columns = rng.standard_normal((n, k))
    for j in range(1, k):
        if _chance(rng, 0.35):
            columns[:, j] = columns[:, j - 1] + _magnitude(rng, -17, -2) * columns[:, j]
            kind.append("collinear")
    for j in range(k):
        if _chance(rng, 0.3):
            columns[:, j] += _magnitude(rng, 0, 12)
            kind.append("far from zero")
        if _chance(rng, 0.6):
            columns[:, j] *= _magnitude(rng, -17, 16)
            kind.append("scaled")
    return columns


def _draw(rng, seed):
    kind = []
    codes = _layout(rng, int(rng.integers(1, 4)))
    n = len(codes[0])
    X = _columns(rng, n, kind)
    units = X - X.mean(axis=0)
    units = units / np.sqrt((units**2).mean(axis=0))
    most = 3 if len(codes) == 1 else 1
    slopes = []
    for _ in codes:
        number = int(rng.integers(0, min(most, X.shape[1]) + 1)) if _chance(rng, 0.6) else 0
        slopes.append(tuple(int(j) for j in rng.permutation(X.shape[1])[:number]))
    covariance = tuple(
        ("full", "full", "diagonal", "scalar")[int(rng.integers(4))] if own else "full"
        for own in slopes
    )
    weights = None
    if _chance(rng, 0.25):
        reach = 20 if _chance(rng, 0.4) else 5
        weights = np.array([_magnitude(rng, -reach, reach) for _ in range(n)])
        kind.append(f"weights to 2^{reach}")
    noise = _magnitude(rng, -13, 0) if _chance(rng, 0.3) else 1.0
    y = noise * rng.standard_normal(n)
    if weights is not None:
        y = y / np.sqrt(weights)
    for own, code in zip(slopes, codes, strict=True):
        q, m = len(own) + 1, int(code.max()) + 1
        draws = rng.standard_normal((m, q))
        trait = int(rng.integers(4))
        if trait == 0:
            draws[:, int(rng.integers(q))] = 0.0
        elif trait == 1:
            draws = draws[:, :1] * rng.standard_normal(q)
        for a in range(q):
            y = y + draws[code, a] * (1.0 if a == 0 else units[:, own[a - 1]])
    if _chance(rng, 0.4):
        y = y + _magnitude(rng, 0, 20) * units[:, int(rng.integers(X.shape[1]))]
        kind.append("large signal")
    y = y * _magnitude(rng, -17, 16)
    kind += [f"noise {noise:.0e}", f"{len(codes)} factors", f"n={n}"]
    return ExactingProblem(
        seed=seed,
        kind=", ".join(kind),
        X=X,
        y=y,
        codes=tuple(codes),
        sample_weight=weights,
        slopes=tuple(slopes),
        covariance=covariance,
        reml=_chance(rng, 0.6),
    )


def is_estimable(problem):
    """Rows to spare beside all effects, columns that vary, factors that differ."""
    X, Zs = problem.matrices()
    n = len(problem.y)
    spread = [X - 0.0]
    for Z, code in zip(Zs, problem.codes, strict=True):
        m = int(code.max()) + 1
        if m < 2 or m > n // 2:
            return False
        spread += [Z[:, [a]] * (code[:, None] == np.arange(m)) for a in range(Z.shape[1])]
    columns = np.hstack(spread)
    columns = columns / np.maximum(np.sqrt((columns**2).sum(axis=0)), 1e-300)
    rank = int((np.linalg.svd(columns, compute_uv=False) > 1e-9).sum())
    pairs = [
        np.unique(np.stack([a, b]), axis=1).shape[1] == min(a.max(), b.max()) + 1
        for i, a in enumerate(problem.codes)
        for b in problem.codes[:i]
        if a.max() == b.max()
    ]
    return rank <= n - 4 and not any(pairs)


def exacting_problem(seed):
    """The problem of this seed; problems that are not estimable are drawn again."""
    rng = np.random.Generator(np.random.PCG64([20261127, seed]))
    while True:
        problem = _draw(rng, seed)
        if is_estimable(problem):
            return problem
