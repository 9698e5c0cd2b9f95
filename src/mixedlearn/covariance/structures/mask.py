"""Covariances zero wherever a mask says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedlearn.covariance.structures.base import Structure
from mixedlearn.covariance.structures.full import Full
from mixedlearn.covariance.structures.pattern import Pattern, elimination_order

FloatArray = NDArray[np.float64]


class Mask(Pattern):
    """A pattern of zeros that the user gives.

    Parameters
    ----------
    mask : ndarray of shape (q, q), bool
        The entries of D that may differ from zero.
    effects : sequence of str
        Names of the effects, for messages.
    """

    name = "mask"

    def __init__(self, mask: NDArray[np.bool_], effects: Sequence[str]):
        super().__init__(mask, elimination_order(mask, effects))

    def theta_of_root(self, root: FloatArray) -> FloatArray:
        """Theta of ``root root'``, whose triangle has the pattern."""
        return self.theta_of(root @ root.T)

    def restricted(self, kept: Sequence[int]) -> Structure:
        """The pattern of fewer effects."""
        return mask_structure(self.mask[np.ix_(kept, kept)], [str(effect) for effect in kept])

    def note(self, effects: Sequence[str]) -> str:
        """Which covariances are zero."""
        pairs = [(i, j) for i, j in np.argwhere(~self.mask) if i < j]
        zeros = ", ".join(f"{effects[i]} and {effects[j]}" for i, j in pairs)
        return f"no covariance of {zeros}"


def mask_structure(given: object, effects: Sequence[str]) -> Structure:
    """The structure of a mask; of one that is True throughout, a full covariance.

    Raises
    ------
    ValueError
        If the mask has the wrong shape, is not symmetric, leaves out a variance, or if its zeros
        cannot be kept by any ordering of the effects.
    """
    mask = _check_mask(given, effects)
    return Full(len(effects)) if mask.all() else Mask(mask, effects)


def _check_mask(covariance: object, effects: Sequence[str]) -> NDArray[np.bool_]:
    q = len(effects)
    try:
        mask = np.asarray(covariance)
    except ValueError as error:
        raise ValueError(
            f"The covariance mask is ragged: give a ({q}, {q}) boolean array. ({error})"
        ) from error
    if mask.shape != (q, q):
        raise ValueError(
            f"The covariance mask has shape {mask.shape}, but there are {q} random effects per "
            f"level ({', '.join(effects)}): give a ({q}, {q}) boolean array."
        )
    if mask.dtype != bool:
        raise ValueError(
            f"The covariance mask has dtype {mask.dtype}: give booleans, True where an entry of "
            "the covariance matrix is free and False where it is zero."
        )
    if not mask.diagonal().all():
        name = effects[int(np.argmin(mask.diagonal()))]
        raise ValueError(
            f"The covariance mask fixes the variance of {name!r} at zero: take the effect out of "
            "the random effects instead."
        )
    if not np.array_equal(mask, mask.T):
        i, j = np.argwhere(mask != mask.T)[0]
        raise ValueError(
            f"The covariance mask is not symmetric at {effects[i]!r}, {effects[j]!r}: a covariance "
            "is free in both places or in none."
        )
    return mask
