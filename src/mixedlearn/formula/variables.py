"""The columns of X that the fixed effects of a formula are made of: factors and covariates."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from formulaic.parser.types import Factor

from mixedlearn.formula.coding import Coding
from mixedlearn.formula.expressions import in_python
from mixedlearn.formula.model import CompiledFormula
from mixedlearn.formula.terms import names_in


@dataclass(frozen=True, slots=True)
class Variable:
    """A column of X with a fixed effect.

    Attributes
    ----------
    name : str
    categories : tuple or None
        Its values, if the formula takes it as a categorical variable, by itself or as ``C(name)``.
    is_category : bool
        Whether the column itself is one of categories, so that its values are not numbers.
    position : int or None
        The numeric column of the model that is this column as it stands.
    expressions : tuple of str
        What the formula computes from it.
    """

    name: str
    categories: tuple[Any, ...] | None
    is_category: bool
    position: int | None
    expressions: tuple[str, ...]


def fixed_variables(compiled: CompiledFormula) -> list[Variable]:
    """The columns of X with a fixed effect, in the order in which the formula has them."""
    place = {name: k for k, name in enumerate(compiled.names)}
    found: dict[str, Variable] = {}
    for coding in compiled.fixed_codings():
        for factor in _factors(coding):
            is_lookup = factor.eval_method is Factor.EvalMethod.LOOKUP
            categories = _categories(coding, factor)
            for name, _ in names_in(factor):
                if name not in coding.variables:
                    continue
                known = found.get(name) or Variable(name, None, False, place.get(name), ())
                is_own = categories is not None and (is_lookup or _is_categories_of(factor, name))
                found[name] = Variable(
                    name,
                    categories if is_own else known.categories,
                    known.is_category or (is_own and is_lookup),
                    known.position,
                    known.expressions if is_lookup else (*known.expressions, factor.expr),
                )
    return list(found.values())


def _factors(coding: Coding) -> Iterator[Factor]:
    yield from dict.fromkeys(factor for term in coding.terms for factor in term.factors)


def _categories(coding: Coding, factor: Factor) -> tuple[Any, ...] | None:
    """The categories of a categorical expression, in their order."""
    if coding.is_plain or factor.eval_method is Factor.EvalMethod.LITERAL:
        return None
    kind, state = coding.spec.encoder_state[factor.expr]
    return tuple(state["categories"]) if kind is Factor.Kind.CATEGORICAL else None


def _is_categories_of(factor: Factor, name: str) -> bool:
    """Whether an expression is ``C(name, ...)``."""
    source, names = in_python(factor.expr)
    node = ast.parse(source, mode="eval").body
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return False
    first = node.args[0] if node.args else None
    is_name = isinstance(first, ast.Name) and names.get(first.id, first.id) == name
    return node.func.id == "C" and is_name
