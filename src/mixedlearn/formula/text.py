"""A model as text in lme4's notation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """

    has_intercept: bool
    terms: tuple[str, ...]


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

    Where lme4 has no notation for a covariance, a note stands behind the factor:
    ``(1 + x || g; one variance)`` for a scalar one, ``(1 + x + z | g; no covariance of x and z)``
    for a mask whose zeros do not separate blocks.
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
    if structure.kind == "scalar" and len(names) > 1:
        block = Block(factor.random_intercept, tuple(names[factor.random_intercept :]))
        return [f"({_left(block)} || {grouping}; one variance)"]
    if structure.has_full_blocks:
        blocks = []
        for own in structure.blocks():
            is_first = bool(factor.random_intercept and own[0] == 0)
            blocks.append(Block(is_first, tuple(names[effect] for effect in own[is_first:])))
        return _random_texts(grouping, blocks)
    block = Block(factor.random_intercept, tuple(names[factor.random_intercept :]))
    zeros = ", ".join(
        f"{names[i]} and {names[j]}" for i, j in np.argwhere(~structure.mask) if i < j
    )
    return [f"({_left(block)} | {grouping}; no covariance of {zeros})"]


def _random_texts(grouping: str, blocks: Sequence[Block]) -> list[str]:
    if len(blocks) > 1 and all(len(block.terms) + block.has_intercept == 1 for block in blocks):
        has_intercept = any(block.has_intercept for block in blocks)
        terms = tuple(term for block in blocks for term in block.terms)
        return [f"({_left(Block(has_intercept, terms))} || {grouping})"]
    return [f"({_left(block)} | {grouping})" for block in blocks]


def _left(block: Block) -> str:
    return " + ".join([str(int(block.has_intercept)), *block.terms] if block.terms else ["1"])
