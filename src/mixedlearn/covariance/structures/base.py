"""What a covariance structure is: the protocol, with answers that hold for any structure.

Notation
--------
``D = Lambda Lambda'`` is the (q, q) covariance of the effects of one level, relative to the noise
variance; Lambda is its ``root``, a function of the parameters ``theta`` of the structure. D depends
on Lambda only through the product, so the objective is smooth in theta through zero and needs no
bounds (Bates et al. 2015, section 2.2; Pinheiro & Bates 1996). A structure chooses its theta so
that this holds at every end of its range, a correlation of one included.

A new structure is a subclass with `root`, `directions` (and `curvature` where the root is not
linear), `theta_of` and `n_parameters`, the standard deviations that are shared (`deviations`) and
the `correlations` that are parameters. What else is here are answers that are right, if not the
best, for all: a subclass overrides what it knows better.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.algebra import lifted
from mixedlearn.covariance.charts import Chart

FloatArray = NDArray[np.float64]

# Members of a structure, drawn to see whether another contains it, and how close is the same.
N_DRAWN = 6
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Notation:
    """How lme4 writes a structure, ``cs(effects | grouping, hom = TRUE)``.

    Attributes
    ----------
    function : str
    hom : bool or None
        Whether the effects have one variance; None where the function does not ask.
    is_default : bool
        Whether the function means this structure where ``hom`` is left out.
    """

    function: str
    hom: bool | None = None
    is_default: bool = True


@dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation that is a parameter.

    Attributes
    ----------
    pairs : tuple of (int, int)
        The pairs of effects that have it.
    effects : tuple of int
        The effects that it is named after.
    lower, upper : float
        Its range.
    freed_by : tuple of frozenset of int
        Sets of effects without which nothing depends on it.
    """

    pairs: tuple[tuple[int, int], ...]
    effects: tuple[int, ...]
    lower: float
    upper: float
    freed_by: tuple[frozenset[int], ...]


@dataclass(frozen=True, slots=True)
class BasisChanges:
    """Which changes of the columns of Z leave a model with this structure as it is.

    Attributes
    ----------
    blocks : tuple of ndarray of int, or None
        Blocks of effects within which every change does; None where only those below do.
    has_own_scales : bool
        Whether each effect may have a scale of its own, or only all a common one.
    absorbs : ndarray of shape (q,), bool
        The slopes whose shift the intercept, the first effect, may take up.
    keeps_all : bool
        Whether an effect stays even if its column is zero, since the others' covariances depend on
        its place.
    """

    blocks: tuple[NDArray[np.intp], ...] | None
    has_own_scales: bool
    absorbs: NDArray[np.bool_]
    keeps_all: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """An end of the structure that is near by.

    Attributes
    ----------
    size : float
        The standard deviation, or the sine of the angle, that vanishes there.
    entries : ndarray of int
        Entries of theta to set.
    values : ndarray of float
        What to set them to.
    """

    size: float
    entries: NDArray[np.intp]
    values: FloatArray


class Structure(ABC):
    """The covariance structure of the effects of a level.

    Parameters
    ----------
    n_effects : int
        Number of effects per level, q.

    Attributes
    ----------
    name : str
        Its name in the registry.
    notation : Notation or None
        How a formula writes it.
    least_effects : int
        With fewer effects it is nothing but a full covariance.
    is_linear : bool
        Whether the root is linear in theta.
    """

    name: ClassVar[str] = ""
    notation: ClassVar[Notation | None] = None
    least_effects: ClassVar[int] = 1
    is_linear: ClassVar[bool] = False

    def __init__(self, n_effects: int):
        self.n_effects = n_effects

    # --- the maps between theta, Lambda and D ----------------------------------------------------
    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Number of entries of theta."""

    @abstractmethod
    def root(self, theta: FloatArray) -> FloatArray:
        """Lambda, shape (q, q); of a stack of thetas (..., n_parameters), shape (..., q, q)."""

    @abstractmethod
    def directions(self, theta: FloatArray) -> FloatArray:
        """Derivatives of Lambda by each parameter, shape (n_parameters, q, q)."""

    def curvature(self, theta: FloatArray) -> FloatArray | None:
        """Second derivatives of Lambda, (n_parameters, n_parameters, q, q); None if all zero."""
        return None

    @abstractmethod
    def theta_of(self, covariance: FloatArray) -> FloatArray:
        """Theta of a positive semi-definite D; of one without this structure, theta of one near."""

    def theta_of_root(self, root: FloatArray) -> FloatArray:
        """Theta of ``root root'``, for any root (q, ...) of a D with this structure."""
        return self.theta_of(root @ root.T)

    def project(self, covariance: FloatArray, floor: float = 0.0) -> FloatArray:
        """A positive semi-definite D with this structure near a symmetric matrix.

        Used for starting values only, so near is enough: negative eigenvalues are lifted to
        ``floor`` before the structure is imposed.
        """
        root = self.root(self.theta_of(lifted(covariance, floor)))
        return np.asarray(root @ root.T)

    # --- the meaning of D ------------------------------------------------------------------------
    @property
    def mask(self) -> NDArray[np.bool_]:
        """The entries of D that may differ from zero, shape (q, q)."""
        return np.ones((self.n_effects, self.n_effects), bool)

    @property
    def deviations(self) -> tuple[tuple[int, ...], ...]:
        """The standard deviations that are parameters, each by the effects that have it."""
        return tuple((effect,) for effect in range(self.n_effects))

    @property
    def correlations(self) -> tuple[Correlation, ...]:
        """The correlations that are parameters; by default all that the mask leaves."""
        return tuple(
            Correlation(((j, i),), (j, i), -1.0, 1.0, (frozenset([j]), frozenset([i])))
            for j in range(self.n_effects)
            for i in range(j + 1, self.n_effects)
            if self.mask[i, j]
        )

    @property
    def has_free_covariances(self) -> bool:
        """Whether every covariance is a parameter of its own, and without any, every variance."""
        n_pairs = int(np.tril(self.mask, -1).sum())
        is_shared = len(self.deviations) < self.n_effects
        return self.n_parameters == len(self.deviations) + n_pairs and not (is_shared and n_pairs)

    def group_of(self, effect: int) -> tuple[int, ...]:
        """The effects that have the standard deviation of an effect."""
        return next(group for group in self.deviations if effect in group)

    def blocks(self) -> list[NDArray[np.intp]]:
        """Sets of effects that have no covariances with each other."""
        mask = self.mask.astype(int)
        reach = np.linalg.matrix_power(mask, max(self.n_effects, 1)) > 0
        return [np.flatnonzero(row) for k, row in enumerate(reach) if not row[:k].any()]

    def span(self) -> FloatArray | None:
        """Matrices that may be added to any D, as far as it stays positive semi-definite.

        None where the set of D is curved: nothing may be added to all of them.
        """
        return None

    def tangent(self, theta: FloatArray) -> FloatArray:
        """Symmetric matrices that span the directions in which D may move, shape (a, q, q)."""
        one_sided = self.directions(theta) @ self.root(theta).T
        return np.asarray(one_sided + one_sided.transpose(0, 2, 1))

    def contains(self, smaller: Structure, embedding: FloatArray) -> bool:
        """Whether every D of another structure is one of this, for other random columns.

        Parameters
        ----------
        smaller : Structure
        embedding : ndarray of shape (q, q of the other)
            The other's random columns as combinations of those of this; unit vectors where they
            are among them.
        """
        generator = np.random.default_rng(0)
        for _ in range(N_DRAWN):
            root = embedding @ smaller.root(generator.standard_normal(smaller.n_parameters))
            covariance = root @ root.T
            own = self.root(self.theta_of(covariance))
            sizes = np.sqrt(np.diag(covariance))
            sizes = np.where(sizes > 0.0, sizes, np.linalg.norm(sizes))
            if (np.abs(own @ own.T - covariance) > SAME * np.outer(sizes, sizes)).any():
                return False
        return True

    def is_same(self, other: Structure) -> bool:
        """Whether another structure is the same."""
        return type(self) is type(other) and np.array_equal(self.mask, other.mask)

    def note(self, effects: Sequence[str]) -> str:
        """What a formula says of it behind the grouping factor, where lme4 has no notation."""
        return self.name

    # --- parts and other columns -----------------------------------------------------------------
    @property
    def basis_changes(self) -> BasisChanges:
        """Which changes of the columns leave the model as it is; by default a common scale."""
        return BasisChanges(None, False, np.zeros(self.n_effects, bool), True)

    def restricted(self, kept: Sequence[int]) -> Structure:
        """The structure of some effects, where the others are zero.

        Effects that share a standard deviation are kept or left out together.
        """
        raise ValueError(
            f"The effects of a covariance structure {self.name!r} go together: {len(kept)} of "
            f"{self.n_effects} have no such structure."
        )

    def in_engine(self, kept: NDArray[np.intp]) -> Structure:
        """The structure as the engines see it: of the effects that have a column in their basis."""
        return self if len(kept) == self.n_effects else self.restricted(kept.tolist())

    # --- the search ------------------------------------------------------------------------------
    def em_update(
        self, covariance: FloatArray, gradient: FloatArray, n_levels: int
    ) -> FloatArray | None:
        """One EM step, or None where it has no closed form.

        Without a structure it is ``D - D G D / m``; no inverse of D, so a zero variance is no
        special case. Source: Lindstrom & Bates (1988), section 4, written with the gradient G of
        the objective by D.
        """
        return None

    def chart(self, theta: FloatArray) -> Chart | None:
        """Coordinates for a Newton step from theta; None for theta itself, all of it free."""
        return None

    def charts(self, theta: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
        """Thetas of shape (n, n_parameters) in their charts; their free entries, (n, n_free)."""
        n, size = theta.shape
        found = [self.chart(own) for own in theta]
        moved = np.array(
            [own if chart is None else chart.theta for own, chart in zip(theta, found, strict=True)]
        ).reshape(n, size)
        free = [np.arange(size) if own is None else np.flatnonzero(own.free) for own in found]
        return moved, np.array(free, dtype=np.intp).reshape(n, -1)

    def settlements(self, theta: FloatArray) -> list[Settlement]:
        """The ends of the structure that are near by, whatever near means."""
        return []

    def ways_out(self, theta: FloatArray, gradient: FloatArray, size: float) -> list[FloatArray]:
        """Thetas near by that the objective may prefer although no derivative by theta shows it.

        Parameters
        ----------
        theta : ndarray of shape (n_parameters,)
        gradient : ndarray of shape (q, q)
            G, the derivative of the objective by D.
        size : float
            Standard deviation of what is added, in natural units.
        """
        return []

    def trials(self) -> list[FloatArray]:
        """D of unit size to start from, where there may be several optima."""
        return [np.eye(self.n_effects)]
