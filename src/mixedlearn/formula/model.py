"""A compiled formula: from rows of a data frame to numeric columns and labels.

The random terms of a factor become blocks of its covariance: effects of one term are correlated,
those of different terms are not. A double bar is taken as lme4 takes it, ``(a + b || g)`` for
``(1 | g) + (0 + a | g) + (0 + b | g)``: a categorical variable is coded fully and its own effects
stay correlated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from formulaic import SimpleFormula
from numpy.typing import NDArray

from mixedlearn.covariance.structures import REGISTRY, Parts
from mixedlearn.data.frames import as_frame
from mixedlearn.data.labels import Labels, as_labels, interaction
from mixedlearn.formula.brackets import FormulaError
from mixedlearn.formula.coding import Coding, learn_coding, rows_of_categories
from mixedlearn.formula.hypotheses import effect_terms, fixed_terms
from mixedlearn.formula.parser import (
    Grouping,
    ParsedFormula,
    RandomTerm,
    find_name,
    parse,
    quoted,
)
from mixedlearn.formula.response import (
    NumberOfRow,
    learn_offset,
    offset_terms,
    response_columns,
    response_terms,
)
from mixedlearn.formula.terms import read_terms, term_text, unknown_column, variables_of
from mixedlearn.formula.text import Block, formula_text
from mixedlearn.specification import (
    INTERCEPT,
    EffectTerm,
    Specification,
    Term,
    make_specification,
)

FloatArray = NDArray[np.float64]

# So many entries are copied before pandas has found out whether columns lie side by side.
COPIED_ENTRIES = 1 << 16


@dataclass(frozen=True, slots=True)
class _Factor:
    """A grouping factor of a formula.

    Attributes
    ----------
    columns : tuple of str
        Its column of X, or those of an interaction.
    blocks : tuple of tuple of str
        Names of the effects of every block, "intercept" for the intercept.
    structures : tuple of str
        Name of the covariance structure of every block.
    terms : tuple of EffectTerm
        Its effects but for the intercept, by terms.
    """

    columns: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    structures: tuple[str, ...]
    terms: tuple[EffectTerm, ...]

    @property
    def name(self) -> str:
        """Name of the factor."""
        return ":".join(self.columns)

    @property
    def slopes(self) -> list[str]:
        """Names of the columns with a random slope, block by block."""
        return [name for block in self.blocks for name in block if name != INTERCEPT]

    @property
    def covariance(self) -> Any:
        """What the parameter ``covariance`` says of these blocks."""
        if len(self.blocks) == 1:
            return self.structures[0]
        if any(structure != "full" for structure in self.structures):
            return self._parts()
        if all(len(block) == 1 for block in self.blocks):
            return "diagonal"
        own = [(name, k) for k, block in enumerate(self.blocks) for name in block]
        own.sort(key=lambda entry: entry[0] != INTERCEPT)
        block_of = np.array([k for _, k in own])
        return block_of[:, None] == block_of

    def _parts(self) -> Parts:
        """The blocks by the places of their effects, the intercept's first."""
        has_intercept = any(INTERCEPT in block for block in self.blocks)
        place = {name: k for k, name in enumerate(self.slopes, start=int(has_intercept))}
        place[INTERCEPT] = 0
        effects = tuple(tuple(place[name] for name in block) for block in self.blocks)
        return Parts(self.structures, effects)


@dataclass(frozen=True, slots=True, eq=False)
class CompiledFormula:
    """A formula with what was learnt from the rows of `fit`; it holds none of them.

    Attributes
    ----------
    text : str
        The formula as this package would write it.
    given : str
        The formula as the user wrote it.
    codings : tuple of Coding
        Of the fixed effects, then of the left sides of the bars.
    names : tuple of str
        Names of the numeric columns, each once.
    fixed : tuple of str
        Those with a fixed effect.
    fit_intercept : bool
    factors : tuple of _Factor
    terms : tuple of Term
        The terms of the fixed effects.
    notes : tuple of str
        What users should know of how the rows of `fit` were read.
    response : NumberOfRow or None
        The left-hand side, if there is one.
    offsets : tuple of NumberOfRow
        What is added to the mean with a coefficient of one.
    """

    text: str
    given: str
    codings: tuple[Coding, ...]
    names: tuple[str, ...]
    fixed: tuple[str, ...]
    fit_intercept: bool
    factors: tuple[_Factor, ...]
    terms: tuple[Term, ...]
    notes: tuple[str, ...] = ()
    response: NumberOfRow | None = None
    offsets: tuple[NumberOfRow, ...] = ()

    def with_response(self, response: NumberOfRow) -> CompiledFormula:
        """The same formula with its left-hand side."""
        return replace(
            self,
            text=f"{response.text} ~ {self.text}",
            notes=(*self.notes, *response.coding.notes),
            response=response,
        )

    def specification(self, *, reml: bool) -> Specification:
        """The model in terms of the numeric columns."""
        position = {name: column for column, name in enumerate(self.names)}
        return make_specification(
            self.names,
            [(factor.name, ()) for factor in self.factors],
            fixed_effects=[position[name] for name in self.fixed],
            random_intercept={
                factor.name: any(INTERCEPT in block for block in factor.blocks)
                for factor in self.factors
            },
            random_slopes={
                factor.name: [position[name] for name in factor.slopes] for factor in self.factors
            },
            covariance={factor.name: factor.covariance for factor in self.factors},
            fit_intercept=self.fit_intercept,
            reml=reml,
            terms=self.terms,
        )

    def terms_of_fit(self) -> list[SimpleFormula]:
        """All that was computed from the rows of `fit`; see `terms_of`."""
        beside = [*self.offsets, *([] if self.response is None else [self.response])]
        return [coding.formula for coding in (*self.codings, *(own.coding for own in beside))]

    def effect_terms(self) -> tuple[tuple[EffectTerm, ...], ...]:
        """For every factor, its random effects but for the intercept, by terms."""
        return tuple(factor.terms for factor in self.factors)

    def rows(
        self,
        X: pd.DataFrame,
        needed: Sequence[str] | None = None,
        factors: Sequence[str] | None = None,
        *,
        is_batch: bool = False,
        unknown: dict[str, Any] | None = None,
    ) -> FloatArray:
        """The numeric columns of these rows, shape (n, len(names)).

        Parameters
        ----------
        X : DataFrame
        needed : sequence of str, optional
            Names of the numeric columns that are used; others are zero, and what they are made of
            may be missing.
        factors : sequence of str, optional
            The grouping factors that are used. By default everything is.
        is_batch : bool, default=False
            Whether the rows are further ones of the fit.
        unknown : dict, optional
            For categories that `fit` did not see; see `Coding.columns`.

        Raises
        ------
        ValueError
            If X has not the columns that the formula uses, a value is missing or not of its kind,
            or a category of a fixed effect was not seen in `fit`.
        """
        codings = list(self.codings) if needed is None else self._codings_of(needed)
        if is_batch:
            # A single category may have no column, and others are refused all the same.
            codings += [own for own in self.codings if own not in codings and own.has_single]
        self._check_columns(X, codings, factors)
        columns: dict[str, FloatArray] = {}
        for coding in codings:
            is_random = not set(coding.names).intersection(self.fixed)
            own = coding.columns(X, is_random=is_random, is_batch=is_batch, unknown=unknown)
            columns.update(zip(coding.names, own, strict=True))
        if set(self.names) <= columns.keys():
            is_plain = all(coding.is_plain for coding in codings)
            return _stacked({name: columns[name] for name in self.names}, X, is_plain=is_plain)
        nothing = np.zeros(len(X))
        return _stacked({name: columns.get(name, nothing) for name in self.names}, X)

    def check_columns(self, X: pd.DataFrame, needed: Sequence[str], factors: Sequence[str]) -> None:
        """Refuse a frame that lacks a column; its rows are not looked at. See `rows`."""
        self._check_columns(X, self._codings_of(needed), factors)

    def _check_columns(
        self, X: pd.DataFrame, codings: Sequence[Coding], factors: Sequence[str] | None
    ) -> None:
        used = {name for coding in codings for name in coding.variables}
        grouping = (
            name
            for factor in self.factors
            if factors is None or factor.name in factors
            for name in factor.columns
        )
        for name in [*used, *grouping]:
            if name not in X.columns:
                raise ValueError(
                    f"X has no column {name!r}, which the formula {self.text!r} uses: its columns "
                    f"are {', '.join(map(repr, X.columns)) or 'none'}."
                )

    def fixed_codings(self) -> list[Coding]:
        """The codings that make the columns with a fixed effect."""
        return self._codings_of(self.fixed)

    def _codings_of(self, names: Sequence[str]) -> list[Coding]:
        """The first codings that make all of these columns."""
        missing, found = set(names), []
        for coding in self.codings:
            if missing.intersection(coding.names):
                found.append(coding)
                missing.difference_update(coding.names)
        return found

    def labels(
        self, X: pd.DataFrame, factors: Sequence[str] | None = None, *, may_miss: bool = False
    ) -> list[Labels]:
        """The labels of some factors, or of all; see `as_labels`."""
        found = []
        for factor in self.factors:
            if factors is not None and factor.name not in factors:
                continue
            parts = [
                as_labels(X[name], len(X), [name], may_miss=may_miss)[0] for name in factor.columns
            ]
            found.append(parts[0] if len(parts) == 1 else interaction(factor.name, parts))
        return found


def as_pandas(X: Any, what: str = "X") -> pd.DataFrame:
    """A data frame of pandas, from one of polars or a table of Arrow if need be.

    Raises
    ------
    ValueError
        If it is no data frame: a formula goes by names.
    """
    X = as_frame(X)
    if isinstance(X, pd.DataFrame):
        return X
    if hasattr(X, "to_dict") and hasattr(X, "get_columns"):
        try:
            return X.to_pandas()
        except ImportError:  # without pyarrow
            return pd.DataFrame(X.to_dict(as_series=False))
    hint = " In a Pipeline, set_output(transform='pandas') keeps the names." if what == "X" else ""
    raise ValueError(
        f"A formula names columns, so {what} must be a DataFrame, got {type(X).__name__}.{hint}"
    )


def columns_used(text: str, X: pd.DataFrame, response: str = "") -> list[str]:
    """The columns of X that the right-hand side of a formula uses, in the order of X.

    Columns of the response are not counted by a dot.
    """
    names = list(X.columns)
    parsed = parse(text)
    if response:
        response_terms(response, names)
    fixed, random = _read(parsed, _predictors(response, names), names)
    used = set(variables_of(fixed, names))
    for term, effects in zip(parsed.random, random, strict=True):
        used.update(variables_of(effects, names))
        used.update(name for grouping in term.groupings for name in grouping.columns)
    for offset in parsed.offsets:
        offset_terms(offset, names)
        used.update(response_columns(offset, names))
    return [name for name in names if name in used]


def category_rows(text: str, X: pd.DataFrame) -> list[int]:
    """Places of rows of which a formula learns all categories that X has, in their order."""
    parsed, names = parse(text), list(X.columns)
    fixed, random = _read(parsed, _predictors(parsed.response, names), names)
    return sorted(set().union(*(rows_of_categories(own, X, text) for own in (fixed, *random))))


def terms_of(text: str, names: Sequence[str]) -> list[SimpleFormula]:
    """All that a formula computes from columns of these names: effects, offsets, the response.

    Raises
    ------
    FormulaError
        If the formula is not as it should be; the message shows where.
    """
    parsed = parse(text)
    fixed, random = _read(parsed, _predictors(parsed.response, names), names)
    found = [fixed, *random, *(offset_terms(own, names) for own in parsed.offsets)]
    if parsed.response:
        known = [*names, *response_columns(parsed.response, names)]
        found.append(response_terms(parsed.response, known))
    return found


def compile_formula(
    text: str, X: pd.DataFrame, *, keeps_categories: bool = False
) -> tuple[CompiledFormula, FloatArray]:
    """Compile the right-hand side of a formula for the rows of `fit`.

    Parameters
    ----------
    text : str
        With the left-hand side or without.
    X : DataFrame
        All columns; the formula's `names` are not those of X.
    keeps_categories : bool, default=False
        Whether those count that a column declares and no row has.

    Returns
    -------
    compiled : CompiledFormula
    rows : ndarray of shape (n, len(names))

    Raises
    ------
    FormulaError
        If the formula is not as it should be; the message shows where.
    ValueError
        If a value is missing.
    """
    parsed, names = parse(text), list(X.columns)
    fixed_part, random_parts = _read(parsed, _predictors(parsed.response, names), names)
    columns = _Columns(text, keeps_categories)
    fixed = columns.add(fixed_part, X)
    codings = [fixed]
    grouped: dict[frozenset[str], _Grouped] = {}
    for term, left in zip(parsed.random, random_parts, strict=True):
        own = [columns.add(part, X) for part in (_separated(left) if term.is_separate else [left])]
        codings += own
        effects = [coding for coding in own if coding.has_intercept or coding.names]
        if not effects:
            raise FormulaError(
                "The random term has no effect: 0 leaves out its intercept.", text, term.position
            )
        for grouping in term.groupings:
            found = grouped.setdefault(frozenset(grouping.columns), _Grouped(grouping))
            for coding in effects:
                found.add(coding, term, text)
    if INTERCEPT in columns.found:
        raise FormulaError(
            f"X has a column called {INTERCEPT!r}, the name of the constant: rename it.",
            text,
            find_name(INTERCEPT, text),
        )
    offsets = tuple(learn_offset(own, X) for own in parsed.offsets)
    compiled = CompiledFormula(
        text=formula_text(
            fixed.has_intercept,
            [*map(term_text, fixed.terms), *(f"offset({own.text})" for own in offsets)],
            [(":".join(map(quoted, own.grouping.columns)), own.blocks) for own in grouped.values()],
        ),
        given=text,
        codings=tuple(coding for coding in codings if coding.names or coding.has_single),
        names=tuple(columns.found),
        fixed=fixed.names,
        fit_intercept=fixed.has_intercept,
        factors=tuple(own.factor for own in grouped.values()),
        terms=fixed_terms(fixed),
        notes=tuple(
            dict.fromkeys(
                note
                for coding in (*codings, *(own.coding for own in offsets))
                for note in coding.notes
            )
        ),
        offsets=offsets,
    )
    is_plain = len(columns.plain) == len(columns.found)
    return compiled, _stacked(columns.found, X, is_plain=is_plain)


class _Grouped:
    """The random terms of one grouping, block by block."""

    def __init__(self, grouping: Grouping):
        self.grouping = grouping
        self.effects: list[tuple[str, ...]] = []
        self.structures: list[str] = []
        self.blocks: list[Block] = []
        self.terms: list[EffectTerm] = []

    def add(self, coding: Coding, term: RandomTerm, formula: str) -> None:
        effects = (INTERCEPT,) * coding.has_intercept + coding.names
        _refuse_twice(effects, self.effects, self.grouping, term, formula)
        notation = None if term.structure == "full" else REGISTRY[term.structure].notation
        texts = tuple(term_text(each) for each in coding.terms)
        self.effects.append(effects)
        self.structures.append(term.structure)
        self.blocks.append(Block(coding.has_intercept, texts, notation))
        self.terms += effect_terms(coding)

    @property
    def factor(self) -> _Factor:
        blocks, structures = tuple(self.effects), tuple(self.structures)
        return _Factor(self.grouping.columns, blocks, structures, tuple(self.terms))


class _Columns:
    """The numeric columns, each once; the same name is the same column."""

    def __init__(self, formula: str, keeps_categories: bool):
        self.formula = formula
        self.keeps_categories = keeps_categories
        self.found: dict[str, FloatArray] = {}
        self.plain: set[str] = set()

    def add(self, terms: SimpleFormula, X: pd.DataFrame) -> Coding:
        coding, columns = learn_coding(
            terms, X, self.formula, keeps_categories=self.keeps_categories
        )
        for name, values in zip(coding.names, columns, strict=True):
            if coding.is_plain and name in self.plain:
                continue
            if not np.array_equal(self.found.setdefault(name, values), values, equal_nan=True):
                raise FormulaError(
                    f"Two different columns of the formula are called {name!r}: rename a column of "
                    "X.",
                    self.formula,
                    0,
                )
        if coding.is_plain:
            self.plain.update(coding.names)
        return coding


def _predictors(response: str, names: Sequence[str]) -> list[str]:
    """The columns that are not those of the response."""
    of_response = response_columns(response, names) if response else []
    return [name for name in names if name not in of_response]


def _read(
    parsed: ParsedFormula, predictors: Sequence[str], names: Sequence[str]
) -> tuple[SimpleFormula, list[SimpleFormula]]:
    """The terms of the fixed effects, and those on the left of every bar.

    A dot stands for the predictors that are not grouping factors.
    """
    grouped: set[str] = set()
    for term in parsed.random:
        for grouping in term.groupings:
            for name in grouping.columns:
                if name not in names:
                    position = find_name(name, parsed.text, grouping.position)
                    raise unknown_column(name, parsed.text, position, names)
            grouped.update(grouping.columns)
    others = [name for name in predictors if name not in grouped]
    fixed = read_terms(parsed.fixed, parsed.text, names, others)
    return fixed, [
        read_terms(_without_dot(term.effects, parsed.text), parsed.text, names, ())
        for term in parsed.random
    ]


def _without_dot(effects: str, formula: str) -> str:
    for position, character in enumerate(effects):
        before, after = effects[:position].rstrip()[-1:], effects[position + 1 :].lstrip()[:1]
        if character == "." and before in ("", "+", "-", "(") and after in ("", "+", "-", ")"):
            raise FormulaError(
                "A dot stands for the other columns among the fixed effects only: name those with "
                "a random slope.",
                formula,
                position,
            )
    return effects


def _separated(left: SimpleFormula) -> list[SimpleFormula]:
    """Every term by itself, without an intercept."""
    return [SimpleFormula([term]) for term in left]


def _refuse_twice(
    block: tuple[str, ...],
    known: Sequence[tuple[str, ...]],
    grouping: Grouping,
    term: RandomTerm,
    formula: str,
) -> None:
    for name in block:
        if any(name in other for other in known):
            hint = " A term has an intercept unless it starts with 0." if name == INTERCEPT else ""
            raise FormulaError(
                f"The random effect {name!r} of the factor {':'.join(grouping.columns)!r} is there "
                f"twice.{hint}",
                formula,
                term.position,
            )


def _stacked(
    columns: dict[str, FloatArray], X: pd.DataFrame, *, is_plain: bool = False
) -> FloatArray:
    """The columns as a matrix; as a view of X where they are its own and lie side by side."""
    if is_plain and len(columns) * len(X) > COPIED_ENTRIES:
        names = list(X.columns)
        own = X.take([names.index(name) for name in columns], axis=1)
        return own.to_numpy(dtype=np.float64)
    # Column by column, as they come.
    return np.array(list(columns.values())).T if columns else np.empty((len(X), 0))
