"""Description of a model before it is fitted: what is stored, how, and what an evaluation costs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixedlearn.data.sums import Sums
from mixedlearn.engines.elimination.chain import EliminationPlan, plan_elimination
from mixedlearn.specification import Factor, Specification

# Up to so many random effects of several factors are one dense block, with an exact Hessian.
MOST_JOINT_EFFECTS = 400
# Matrices of the dense tail that exist at the same time in an evaluation.
TAIL_COPIES = 5
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """The blocks of a model; prints as a table.

    Attributes
    ----------
    n_rows, n_fixed : int
        Numbers of rows and of fixed-effect columns.
    factors : tuple of str
        Names of the grouping factors, in the order of elimination.
    n_levels, n_effects : tuple of int
        Number of levels of each, and of random effects per level.
    blocks : tuple of str
        How the products of each factor's random columns are stored.
    tail_size : int
        Number of random effects in the dense block.
    tail_gigabytes : float
        Memory that the dense block takes while the model is fitted.
    multiplications : float
        Multiplications of one evaluation, about, in the dense block.
    """

    n_rows: int
    n_fixed: int
    factors: tuple[str, ...]
    n_levels: tuple[int, ...]
    n_effects: tuple[int, ...]
    blocks: tuple[str, ...]
    tail_size: int
    tail_gigabytes: float
    multiplications: float

    def __repr__(self) -> str:
        total = sum(q * m for q, m in zip(self.n_effects, self.n_levels, strict=True))
        lines = [
            f"{self.n_rows:,} rows, {_counted(self.n_fixed, 'fixed effect')}, "
            f"{_counted(total, 'random effect')} of "
            f"{_counted(len(self.factors), 'grouping factor')}"
        ]
        if self.factors:
            table = [("factor", "levels", "effects", "stored as")]
            for name, m, q, block in zip(
                self.factors, self.n_levels, self.n_effects, self.blocks, strict=True
            ):
                table.append((name, f"{m:,}", str(q), block))
            widths = [max(len(row[column]) for row in table) for column in range(3)]
            lines += [
                f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}"
                for row in table
            ]
        if self.tail_size:
            lines.append(
                f"dense block: {self.tail_size:,} x {self.tail_size:,}, "
                f"{1e3 * self.tail_gigabytes:,.1f} MB, about {self.multiplications:.1e} "
                "multiplications an evaluation"
            )
        return "\n".join(lines)


def describe_model(sums: Sums, specification: Specification) -> ModelDescription:
    """Describe a model from the cross-products of its factors."""
    factors = specification.factors
    n_effects = [len(factor.effects) for factor in factors]
    n_levels = sums.n_levels
    order: tuple[int, ...]
    if len(factors) <= 1:
        order, tail_size = tuple(range(len(factors))), 0
        blocks = [_level_blocks(n_levels[k], n_effects[k]) for k in order]
    elif is_joint(n_effects, n_levels):
        order = tuple(range(len(factors)))
        tail_size = int(np.dot(n_effects, n_levels))
        blocks = ["part of one dense block"] * len(factors)
    else:
        plan = plan_elimination(sums, n_effects)
        order, tail_size = (*plan.chain, *plan.tail), plan.n_tail
        blocks = [_chain_block(sums, plan, factors, k) for k in plan.chain]
        blocks += ["part of the dense block"] * len(plan.tail)
    return ModelDescription(
        n_rows=sums.n_rows,
        n_fixed=len(specification.coef_names),
        factors=tuple(factors[k].name for k in order),
        n_levels=tuple(n_levels[k] for k in order),
        n_effects=tuple(n_effects[k] for k in order),
        blocks=tuple(blocks),
        tail_size=tail_size,
        tail_gigabytes=tail_bytes(tail_size) / 1e9,
        multiplications=float(tail_size) ** 3,
    )


def is_joint(n_effects: Sequence[int], n_levels: Sequence[int]) -> bool:
    """Whether the random effects of several factors are few enough for one dense block."""
    return int(np.dot(n_effects, n_levels)) <= MOST_JOINT_EFFECTS


def tail_bytes(size: int) -> int:
    """Memory of a dense tail while the model is fitted."""
    return TAIL_COPIES * 8 * size**2


def check_memory(plan: EliminationPlan, factors: Sequence[Factor]) -> None:
    """Refuse a dense tail that does not fit into memory.

    Raises
    ------
    MemoryError
        The message says what is needed and which factors are at fault.
    """
    needed, there = tail_bytes(plan.n_tail), _memory()
    if there is None or needed <= there:
        return
    listed = ", ".join(
        f"{factors[k].name!r} ({plan.shapes[k][0] * plan.shapes[k][1]:,})" for k in plan.tail
    )
    raise MemoryError(
        f"The random effects of {listed} stay in one dense block of {plan.n_tail:,} columns, "
        f"because these factors are crossed with {factors[plan.chain[0]].name!r}. It "
        f"needs {needed / 1e9:,.1f} GB, and this machine has {there / 1e9:,.1f} GB. Leave out a "
        "factor or its random slopes, or merge rare levels; describe(X) shows the blocks."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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


def _level_blocks(n_levels: int, q: int) -> str:
    return f"{n_levels:,} blocks of {q} x {q}"


def _chain_block(sums: Sums, plan: EliminationPlan, factors: Sequence[Factor], k: int) -> str:
    text = _level_blocks(plan.shapes[k][1], plan.shapes[k][0])
    position = plan.chain.index(k)
    if position + 1 < len(plan.chain):
        text += f"; nested in {factors[plan.chain[position + 1]].name}"
    if plan.tail:
        pairs = sum(len(sums.pairs(k, other)[0]) * plan.shapes[other][0] for other in plan.tail)
        text += f"; {pairs:,} entries beside the dense block"
    return text
