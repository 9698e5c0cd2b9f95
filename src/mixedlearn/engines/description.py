"""Description of a model before it is fitted: the plan of its fit, in words."""

from __future__ import annotations

from dataclasses import dataclass

from mixedlearn.data.sums import Sums
from mixedlearn.engines.choose import choose
from mixedlearn.engines.plan import FEW_PARAMETERS, Block, search_memory
from mixedlearn.specification import Specification

# Letters in a line of the description.
LINE_WIDTH = 80


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
    solver : str
        "exact" or "stochastic".
    tail_size : int
        Number of random effects in the dense block, or in the equations that are solved by
        iteration.
    tail_gigabytes : float
        Memory that these take while the model is fitted.
    multiplications : float
        Multiplications of one evaluation, about, in these.
    n_parameters : int
        Number of parameters of the random effects' covariances.
    search_gigabytes : float
        Memory that the search for them takes, about.
    """

    n_rows: int
    n_fixed: int
    factors: tuple[str, ...]
    n_levels: tuple[int, ...]
    n_effects: tuple[int, ...]
    blocks: tuple[str, ...]
    solver: str
    tail_size: int
    tail_gigabytes: float
    multiplications: float
    n_parameters: int
    search_gigabytes: float

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
            for label, levels, effects, stored in table:
                left = f"{label:<{widths[0]}}  {levels:>{widths[1]}}  {effects:>{widths[2]}}  "
                if len(left + stored) > LINE_WIDTH:
                    stored = stored.replace("; ", ";\n" + " " * len(left))
                lines.append(left + stored)
        if self.tail_size:
            is_exact = self.solver == "exact"
            name = "dense block" if is_exact else "equations solved by iteration"
            lines.append(
                f"{name}: {self.tail_size:,} x {self.tail_size:,}, "
                f"{1e3 * self.tail_gigabytes:,.1f} MB, about {self.multiplications:.1e} "
                "multiplications an evaluation"
            )
            lines.append(
                "solver: exact"
                if is_exact
                else "solver: stochastic, variances with a Monte Carlo error"
            )
        if self.n_parameters > FEW_PARAMETERS:
            lines.append(
                f"covariances: {self.n_parameters:,} parameters, the search for which takes about "
                f"{self.search_gigabytes:,.1f} GB"
            )
        return "\n".join(lines)


def describe_model(sums: Sums, specification: Specification, solver: str) -> ModelDescription:
    """Describe a model from the sums of its factors."""
    factors = specification.factors
    plan = choose(sums, [len(factor.effects) for factor in factors], solver)
    names = specification.factor_names
    return ModelDescription(
        n_rows=sums.n_rows,
        n_fixed=len(specification.coef_names),
        factors=tuple(names[block.factor] for block in plan.blocks),
        n_levels=tuple(block.n_levels for block in plan.blocks),
        n_effects=tuple(block.n_effects for block in plan.blocks),
        blocks=tuple(
            _stored_as(block, names, plan.solver, is_joint=plan.is_joint) for block in plan.blocks
        ),
        solver=plan.solver,
        tail_size=plan.n_dense + plan.n_iterated,
        tail_gigabytes=plan.memory / 1e9,
        multiplications=plan.multiplications,
        n_parameters=sum(factor.structure.n_parameters for factor in factors),
        search_gigabytes=search_memory(specification) / 1e9,
    )


def _stored_as(block: Block, names: tuple[str, ...], solver: str, *, is_joint: bool) -> str:
    if block.is_dense:
        return "part of one dense block" if is_joint else "part of the dense block"
    if block.is_iterated:
        return "part of the equations solved by iteration"
    text = f"{block.n_levels:,} blocks of {block.n_effects} x {block.n_effects}"
    if block.nested_in is not None:
        text += f"; nested in {names[block.nested_in]}"
    if block.n_beside:
        beside = "dense block" if solver == "exact" else "equations"
        text += f"; {block.n_beside:,} entries beside the {beside}"
    return text


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
