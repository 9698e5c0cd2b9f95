"""Recipe: what makes a refit the same fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mixedlearn.specification import Specification

# The limits of the search where nobody sets them.
MAX_ITER = 100
TOL = 1e-8
# Random probes to begin with, where there are any.
N_PROBES = 8


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is fitted to sums.

    Attributes
    ----------
    specification : Specification
    max_iter : int
        Most iterations of the search from one start.
    tol : float
        Decrease of the objective that may remain promised at the optimum.
    is_bounded : bool
        Whether noise is added, to bound the likelihood. Where elimination cannot tell beforehand
        that the random effects reproduce the response, it says that this was found to be so.
    solver : str
        Which engines come into question: "auto", "exact" or "stochastic".
    n_probes, seed : int
        Random probes of the stochastic engine, and what they are drawn from.
    """

    specification: Specification
    max_iter: int = MAX_ITER
    tol: float = TOL
    is_bounded: bool = False
    solver: str = "auto"
    n_probes: int = N_PROBES
    seed: int = 0

    def afresh(self, specification: Specification) -> Recipe:
        """The same solver for another specification, without the limits of the fit."""
        return replace(
            self, specification=specification, max_iter=MAX_ITER, tol=TOL, is_bounded=False
        )

    def of(self, specification: Specification) -> Recipe:
        """The same for another specification."""
        return replace(self, specification=specification)
