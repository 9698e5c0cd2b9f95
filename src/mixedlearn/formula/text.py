"""A model as text in lme4's notation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixedlearn.covariance.structures import Notation
from mixedlearn.formula.parser import quoted
from mixedlearn.specification import Factor, Specification


@dataclass(frozen=True, slots=True)
class Block:
    """Random effects of a factor that are correlated with each other and with no others.

    Attributes
    ----------
    has_intercept : bool
    terms : tuple of str
        The other terms.
    notation : Notation or None
        Of a covariance that is not full.
    """

    has_intercept: bool
    terms: tuple[str, ...]
    notation: Notation | None = None


def formula_text(
    has_intercept: bool, fixed: Sequence[str], random: Sequence[tuple[str, Sequence[Block]]]
) -> str:
    """The right-hand side of a formula."""
    parts = [*([] if has_intercept else ["0"]), *fixed] or ["1"]
    for grouping, blocks in random:
        parts += _random_texts(grouping, blocks)
    return " + ".join(parts)


def formula_of(specification: Specification) -> str:
    """The formula of a model that was given by parameters.

    Where lme4 has no notation for a covariance, a note stands behind the factor: ``(1 + x + z | g;
    no covariance of x and z)`` for a mask whose zeros do not separate blocks.
    """
    names = [quoted(name) for name in specification.coef_names[int(specification.fit_intercept) :]]
    text = formula_text(specification.fit_intercept, names, [])
    for factor in specification.factors:
        text = " + ".join([text, *_of_factor(factor, specification.names)])
    return text


def _of_factor(factor: Factor, columns: Sequence[str]) -> list[str]:
    parts = [columns[column] for column in factor.columns] or [factor.name]
    grouping = ":".join(map(quoted, parts))
    names = [quoted(name) for name in factor.effects]
    structure = factor.structure
    whole = Block(factor.random_intercept, tuple(names[factor.random_intercept :]))
    if len(names) == 1:
        return [f"({_left(whole)} | {grouping})"]
    free = structure.basis_changes.blocks
    if free is not None:
        blocks = []
        for own in free:
            is_first = bool(factor.random_intercept and own[0] == 0)
            blocks.append(Block(is_first, tuple(names[effect] for effect in own[is_first:])))
        return _random_texts(grouping, blocks)
    if structure.notation is not None:
        return [_with_function(structure.notation, whole, grouping)]
    return [f"({_left(whole)} | {grouping}; {structure.note(names)})"]


def _with_function(notation: Notation, block: Block, grouping: str) -> str:
    """A random term with the function of its covariance structure."""
    hom = "" if notation.is_default else f", hom = {str(notation.hom).upper()}"
    return f"{notation.function}({_left(block)} | {grouping}{hom})"


def _random_texts(grouping: str, blocks: Sequence[Block]) -> list[str]:
    if any(block.notation for block in blocks):
        return [
            _with_function(block.notation, block, grouping)
            if block.notation
            else f"({_left(block)} | {grouping})"
            for block in blocks
        ]
    if len(blocks) > 1 and all(len(block.terms) + block.has_intercept == 1 for block in blocks):
        has_intercept = any(block.has_intercept for block in blocks)
        terms = tuple(term for block in blocks for term in block.terms)
        return [f"({_left(Block(has_intercept, terms))} || {grouping})"]
    return [f"({_left(block)} | {grouping})" for block in blocks]


def _left(block: Block) -> str:
    return " + ".join([str(int(block.has_intercept)), *block.terms] if block.terms else ["1"])
