"""Covariance structures of the random effects of a level, and their registry.

`REGISTRY` has every structure that goes by a name: the estimator's ``covariance``, the formula's
functions and the tests take them from there. A new structure is a class in a file of its own (see
`base.Structure`) and an entry here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mixedlearn.covariance.structures.ar1 import AR1
from mixedlearn.covariance.structures.base import BasisChanges, Correlation, Notation, Structure
from mixedlearn.covariance.structures.compound_symmetry import CompoundSymmetry
from mixedlearn.covariance.structures.diagonal import Diagonal
from mixedlearn.covariance.structures.full import Full
from mixedlearn.covariance.structures.heterogeneous_ar1 import HeterogeneousAR1
from mixedlearn.covariance.structures.heterogeneous_compound_symmetry import (
    HeterogeneousCompoundSymmetry,
)
from mixedlearn.covariance.structures.mask import mask_structure
from mixedlearn.covariance.structures.parts import Parts, side_by_side
from mixedlearn.covariance.structures.scalar import Scalar

__all__ = [
    "REGISTRY",
    "BasisChanges",
    "Correlation",
    "Notation",
    "Parts",
    "Structure",
    "functions",
    "make_structure",
    "structure_of_notation",
]

REGISTRY: dict[str, type[Structure]] = {
    structure.name: structure
    for structure in (
        Full,
        Diagonal,
        Scalar,
        CompoundSymmetry,
        HeterogeneousCompoundSymmetry,
        AR1,
        HeterogeneousAR1,
    )
}


def make_structure(covariance: object, effects: Sequence[str]) -> Structure:
    """Build the structure of one factor.

    Parameters
    ----------
    covariance : str, array-like of bool of shape (q, q), or Parts
        The public parameter: a name of the registry, or a mask, in which True marks a free entry of
        D. A formula may have several structures side by side.
    effects : sequence of str
        Names of the q effects, for messages.

    Raises
    ------
    ValueError
        If there is no structure of that name, or the mask is none.
    """
    if isinstance(covariance, Parts):
        return side_by_side(covariance, lambda name, q: make_structure(name, [""] * q))
    if not isinstance(covariance, str):
        return mask_structure(covariance, effects)
    if covariance not in REGISTRY:
        names = ", ".join(map(repr, REGISTRY))
        raise ValueError(
            f"There is no covariance structure {covariance!r}: give one of {names}, or a mask of "
            "booleans."
        )
    return _of_class(REGISTRY[covariance], len(effects))


@lru_cache(maxsize=256)
def _of_class(structure: type[Structure], q: int) -> Structure:
    """The structure of q effects. It has no state, so all fits share what it has computed once."""
    return structure(q) if q >= structure.least_effects else Full(q)


def structure_of_notation(function: str, hom: bool | None) -> str | None:
    """Name of the structure that a formula's function means, if there is one.

    Parameters
    ----------
    function : str
        "us", "diag", "cs", "ar1" or what else the registry has.
    hom : bool or None
        Whether the effects have one variance; None where the formula does not say.
    """
    for name, structure in REGISTRY.items():
        own = structure.notation
        is_asked = own is not None and own.function == function
        if own is not None and is_asked and (own.is_default if hom is None else own.hom == hom):
            return name
    return None


def functions() -> list[str]:
    """The functions that a formula may write a structure with."""
    found = [own.notation.function for own in REGISTRY.values() if own.notation is not None]
    return list(dict.fromkeys(found))
