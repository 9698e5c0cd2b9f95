"""Plan: what an engine would do with a model, and what that costs, before any work.

Every engine makes its plan from the numbers of levels and effects, and from which levels occur
together. `choose.choose` takes one of the plans; the fit follows it and `describe` prints it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixedlearn.engines.elimination.chain import EliminationPlan
from mixedlearn.specification import Specification

# Matrices of the size of the dense block that an evaluation needs at most: one for the products and
# the inverse, half of it each, and one for sums on the way to them.
DENSE_COPIES = 2
# Bytes of a pair of levels in the products that iteration passes over, and how often an evaluation
# multiplies it, about.
PAIR_BYTES, PAIR_PRODUCTS = 16, 200.0
# Matrices of the size of the Hessian that exist at the same time in a search.
HESSIAN_COPIES = 20
# With so few parameters they are small.
FEW_PARAMETERS = 1000
# Covariance, inverse, root and the like of blocks of rows.
COVARIANCE_COPIES = 6
# What needs less is not asked for, since asking takes a while.
MUCH_MEMORY = 1 << 28
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Block:
    """How the products of a factor's random columns are stored.

    Attributes
    ----------
    factor : int
        Position of the factor in the model.
    n_levels, n_effects : int
        m and q.
    is_dense : bool
        Whether they are part of the dense block; else they are m blocks of q x q.
    is_iterated : bool
        Whether they are part of equations that are solved by iteration.
    nested_in : int or None
        The factor that its levels are nested in and eliminated before.
    n_beside : int
        Entries of its rows over the dense block, or over the equations.
    """

    factor: int
    n_levels: int
    n_effects: int
    is_dense: bool
    is_iterated: bool = False
    nested_in: int | None = None
    n_beside: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What an engine would do.

    Attributes
    ----------
    engine : str
        Name of the engine: "one_factor", "joint", "elimination" or "stochastic".
    blocks : tuple of Block
        One for every factor, in the order of elimination.
    is_exact : bool
        Whether the engine has the exact Hessian.
    elimination : EliminationPlan or None
        The order of elimination, for the engines that eliminate.
    n_pairs : int
        Pairs of levels that occur together, for the engine that iterates.
    """

    engine: str
    blocks: tuple[Block, ...]
    is_exact: bool
    elimination: EliminationPlan | None = None
    n_pairs: int = 0

    @property
    def solver(self) -> str:
        """Which of the estimator's solvers it is: "stochastic" or "exact"."""
        return "stochastic" if self.engine == "stochastic" else "exact"

    @property
    def n_iterated(self) -> int:
        """Number of random effects in the equations that are solved by iteration."""
        return sum(block.n_levels * block.n_effects for block in self.blocks if block.is_iterated)

    @property
    def fits(self) -> bool:
        """Whether there is memory for the dense block."""
        there = None if self.elimination is None else _memory()
        return there is None or self.memory <= there

    @property
    def is_joint(self) -> bool:
        """Whether the dense block holds the random effects of all factors."""
        return self.engine == "joint"

    @property
    def n_dense(self) -> int:
        """Number of random effects in the dense block."""
        return sum(block.n_levels * block.n_effects for block in self.blocks if block.is_dense)

    @property
    def memory(self) -> int:
        """Bytes of the dense block, or of the pairs, while the model is fitted."""
        return DENSE_COPIES * 8 * self.n_dense**2 + PAIR_BYTES * self.n_pairs

    @property
    def multiplications(self) -> float:
        """Multiplications of one evaluation in the dense block, or with the pairs, about."""
        return float(self.n_dense) ** 3 + PAIR_PRODUCTS * self.n_pairs

    def check_memory(self, names: Sequence[str]) -> None:
        """Refuse a dense block that does not fit into memory.

        Parameters
        ----------
        names : sequence of str
            Of the factors.

        Raises
        ------
        MemoryError
            The message says what is needed and which factors are at fault.
        """
        if self.solver == "stochastic" or self.fits:
            return
        listed = ", ".join(
            f"{names[block.factor]!r} ({block.n_levels * block.n_effects:,})"
            for block in self.blocks
            if block.is_dense
        )
        raise MemoryError(
            f"The random effects of {listed} stay in one dense block of {self.n_dense:,} columns, "
            f"because these factors are crossed with {names[self.blocks[0].factor]!r}. It "
            f"needs {self.memory / 1e9:,.1f} GB, and this machine has "
            f"{(_memory() or 0) / 1e9:,.1f} GB. Use solver='auto' or 'stochastic', which "
            "need no dense block, leave out a factor or its random slopes, or merge rare levels; "
            "describe(X) shows the blocks."
        )


def search_memory(specification: Specification) -> int:
    """Bytes of the Hessian of all variance components, and what comes with it in a search."""
    return HESSIAN_COPIES * 8 * _n_search_parameters(specification) ** 2


def check_search_memory(specification: Specification) -> None:
    """Refuse covariances of so many parameters that the search does not fit into memory.

    Raises
    ------
    MemoryError
        The message names the factor, and says what is needed.
    """
    if _n_search_parameters(specification) <= FEW_PARAMETERS:
        return
    there, needed = _memory(), search_memory(specification)
    if there is None or needed <= there:
        return
    factor = max(specification.factors, key=lambda own: own.structure.n_parameters)
    q, n_parameters = len(factor.effects), factor.structure.n_parameters
    raise MemoryError(
        f"Each level of {factor.name!r} has {q:,} random effects "
        f"({', '.join(map(repr, factor.effects[:3]))}, ...), whose covariance has "
        f"{n_parameters:,} parameters. The search for them needs {needed / 1e9:,.0f} GB, and this "
        f"machine has {there / 1e9:,.1f} GB. If these effects are the categories of one column, "
        "the bar may be the wrong way round: (1 | column) gives every category an intercept. Else "
        "name fewer columns with a random slope, or choose the structure 'diagonal' or 'scalar'."
    )


def check_block_memory(shapes: Sequence[tuple[int, int]], n_parameters: int) -> None:
    """Refuse blocks of rows whose dense covariances do not fit into memory.

    Parameters
    ----------
    shapes : sequence of (int, int)
        How many covariances there are, and of how many rows each.
    n_parameters : int
        Of the covariances.

    Raises
    ------
    MemoryError
        The message says what is needed.
    """
    # Derivatives by all parameters, and what they are made of.
    needed = sum(8 * (2 * n_parameters + COVARIANCE_COPIES) * n * t**2 for n, t in shapes)
    if needed < MUCH_MEMORY:
        return
    there = _memory()
    if there is None or needed <= there:
        return
    largest = max(t for _, t in shapes)
    raise MemoryError(
        f"Rows that share a level have a dense covariance, here of up to {largest:,} rows, and all "
        f"of them need {needed / 1e9:,.0f} GB where this machine has {there / 1e9:,.1f} GB. Use "
        "shorter series: average rows that follow each other, or leave out random effects that "
        "join many levels to one block."
    )


def _n_search_parameters(specification: Specification) -> int:
    """Number of parameters of all factors in a search."""
    return sum(
        factor.structure.in_engine(np.arange(factor.structure.n_effects)).n_parameters
        for factor in specification.factors
    )


def _memory() -> int | None:
    """Bytes of memory of this machine, or of the container; None where it does not say."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        return min(memory, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        return memory
