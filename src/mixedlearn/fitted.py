"""The fitted model: a frozen object with everything the attributes and later inference need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedlearn.bases import FixedBasis, RandomBasis
from mixedlearn.cross_products import CrossProducts
from mixedlearn.design import Specification
from mixedlearn.engines.levels import ConditionalMoments, conditional_moments, reduce_levels
from mixedlearn.engines.protocol import FixedEffects

FloatArray = NDArray[np.float64]

# A standard deviation of the engine's effects, relative to its natural unit, that is zero.
SINGULAR = 1e-8


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A model with its estimates. Holds cross-products, no rows.

    Attributes
    ----------
    specification : Specification
    products : CrossProducts
    fixed_basis : FixedBasis
    random_basis : RandomBasis
    factor : ndarray of shape (q*, q*)
        Lambda in the engine's columns.
    fixed_effects : FixedEffects
        Generalised least squares in the engine's columns.
    blups : ndarray of shape (m, q)
        Conditional means of the random effects, in the user's units.
    objective : float
        Minus twice the (restricted) log-likelihood.
    n_iterations : int
        Iterations of the optimiser.
    is_certified : bool
        Whether the optimum carries its certificate.
    warnings : tuple of str
        What could not be estimated, in words.
    """

    specification: Specification
    products: CrossProducts
    fixed_basis: FixedBasis
    random_basis: RandomBasis
    factor: FloatArray
    fixed_effects: FixedEffects
    blups: FloatArray
    objective: float
    n_iterations: int
    is_certified: bool
    warnings: tuple[str, ...]

    @property
    def noise_variance(self) -> float:
        """Residual variance of a row of weight one."""
        if self.fixed_basis.is_exact:
            return 0.0
        return self.fixed_effects.noise_variance * self.fixed_basis.scale**2

    @property
    def coef(self) -> FloatArray:
        """Coefficients, the intercept first if there is one; aliased ones are zero."""
        basis = self.fixed_basis
        return basis.offset + basis.scale * (basis.to_user @ self.fixed_effects.coef)

    @property
    def coef_covariance(self) -> FloatArray:
        """Covariance of the coefficients, the variance components taken as known."""
        root = self.fixed_basis.to_user @ self.fixed_effects.inverse_root
        return self.noise_variance * root @ root.T

    @property
    def relative_root(self) -> FloatArray:
        """A root of D in the user's units, shape (q, q*)."""
        return self.random_basis.to_user @ self.factor

    @property
    def theta(self) -> FloatArray:
        """Free entries of Lambda in the user's units."""
        structure = self.specification.structure
        root = np.zeros((structure.n_effects, structure.n_effects))
        root[:, self.random_basis.kept] = self.relative_root
        return structure.theta_from_root(root)

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the random effects of a level, shape (q, q)."""
        return self.noise_variance * self.relative_root @ self.relative_root.T

    @property
    def is_singular(self) -> bool:
        """Whether the covariance of the random effects has no full rank."""
        sizes = np.linalg.svd(self.factor, compute_uv=False)
        n_effects = self.specification.structure.n_effects
        return bool((sizes < SINGULAR).any() or len(sizes) < n_effects)

    @property
    def has_random_effects(self) -> bool:
        """Whether the random effects have any variance."""
        return bool(self.factor.any())

    def conditional_moments(self) -> ConditionalMoments:
        """Distribution of every level's effects given the response, in the engine's columns."""
        moments = reduce_levels(self.products, self.fixed_basis, self.random_basis)
        return conditional_moments(moments, self.factor)

    def conditional_covariances(self) -> FloatArray:
        """Covariance of each level's effects given the response, shape (m, q, q).

        The coefficients are taken as known, as in lme4's ``ranef(condVar=TRUE)``.
        """
        covariance = self.conditional_moments().covariance
        to_user = self.random_basis.to_user
        partial = np.einsum("ai,ijm->maj", to_user, covariance)
        return self.noise_variance * (partial @ to_user.T)
