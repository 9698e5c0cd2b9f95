"""Terms of the fixed effects, and what each would test if categories had sum-to-zero contrasts.

A column of the model matrix is a product of numeric columns and of functions of categorical
variables, ``u f_a(a) f_b(b) ...``. Each ``f_a`` is its mean over the categories plus a deviation
that sums to zero, so the column is a sum over the subsets S of its categorical variables, of

    u * prod_{a in S} dev_a(a) * prod_{a not in S} mean_a.

Added up over the columns, times their coefficients, the part with numeric columns u and deviations
in S is what a model whose categories have contrasts that sum to zero estimates as its coefficients
of u and S (one for each combination of all categories but the last). The marginal, or type III,
hypothesis of a term is that those parts are zero that it has and no earlier term: u with all of its
categorical variables and, where terms or the intercept were left out, with some of them.

References
----------
Searle, S. R. (1987). Linear Models for Unbalanced Data. Wiley, chapter 9.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from formulaic.materializers.types import ScopedTerm
from numpy.typing import NDArray

from mixedlearn.formula.coding import Coding
from mixedlearn.specification import ColumnFunction, EffectTerm, Term, column_terms

FloatArray = NDArray[np.float64]
Contrasts = Callable[[Coding, str, bool], FloatArray]

# What is left of columns that others make up, as a share of their size.
SPANNED = 1e-9


def effect_terms(coding: Coding) -> tuple[EffectTerm, ...]:
    """The terms on the left of a bar but for the intercept, without those that have no column."""
    if coding.is_plain:
        return tuple(EffectTerm(name, (name,), frozenset([name])) for name in coding.names)
    terms: list[EffectTerm] = []
    for term, _, columns in coding.spec.structure or []:
        variables = [factor.expr for factor in term.factors if not _is_literal(term, factor.expr)]
        if not term.degree or not columns:
            continue
        is_categorical = all(coding.spans_intercept.get(name, False) for name in variables)
        # Only the first term of categories has all of them, and only beside no intercept.
        has_constant = (
            is_categorical
            and not coding.has_intercept
            and not any(other.has_constant for other in terms)
        )
        name = ":".join(variables)
        terms.append(EffectTerm(name, tuple(columns), frozenset(variables), has_constant))
    return tuple(terms)


def fixed_terms(coding: Coding) -> tuple[Term, ...]:
    """The terms of the fixed effects but for the intercept, without those that have no column."""
    if coding.is_plain:
        return column_terms(coding.names, coding.has_intercept)
    structure = coding.spec.structure or []
    # The intercept comes first among the coefficients.
    structure = sorted(structure, key=lambda own: own.term.degree > 0)
    rows = [(own.term, _columns(own.scoped_terms, coding, _contrasts)) for own in structure]
    treatment = [_columns(own.scoped_terms, coding, _treatment_contrasts) for own in structure]
    columns = [column for _, own in rows for column in own]
    terms: list[Term] = []
    spanned: set[tuple[frozenset[str], frozenset[str]]] = set()
    start = 0
    for (term, own), by_treatment in zip(rows, treatment, strict=True):
        coefs = tuple(range(start, start + len(own)))
        start += len(own)
        variables = [
            factor.expr for factor in term.factors if factor.expr in coding.spans_intercept
        ]
        variables = [name for name in variables if term.degree and not _is_literal(term, name)]
        categorical = [name for name in variables if coding.spans_intercept[name]]
        numeric = frozenset(variables) - frozenset(categorical)
        parts = [(numeric, frozenset(chosen)) for chosen in _subsets(categorical)]
        new = [chosen for key, chosen in parts if (key, chosen) not in spanned]
        spanned.update(parts)
        if not term.degree or not coefs:
            continue
        units = list(dict.fromkeys(column.numeric for column in own))
        blocks = [_part(columns, unit, sorted(chosen)) for chosen in new for unit in units]
        terms.append(
            Term(
                name=":".join(variables),
                coefs=coefs,
                variables=frozenset(variables),
                numeric=numeric,
                marginal=_standard_rows(np.vstack(blocks), coefs),
                columns=tuple(own),
                treatment=tuple(by_treatment),
            )
        )
    return tuple(terms)


def _is_literal(term: object, name: str) -> bool:
    return any(
        factor.expr == name and factor.eval_method is factor.EvalMethod.LITERAL
        for factor in term.factors  # type: ignore[attr-defined]
    )


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)


def _columns(
    scoped_terms: Iterable[ScopedTerm], coding: Coding, contrasts_of: Contrasts
) -> list[ColumnFunction]:
    """The columns of products of factors, the first factor varying fastest."""
    found = []
    for scoped in scoped_terms:
        choices: list[list[tuple[str, str | None, FloatArray | None]]] = []
        for own in scoped.factors:
            expression = own.factor.expr
            if coding.spans_intercept[expression]:
                matrix = contrasts_of(coding, expression, own.reduced)
                choices.append([(expression, None, function) for function in matrix.T])
            else:
                names = coding.factor_names[expression, own.reduced]
                choices.append([(expression, name, None) for name in names])
        for product in itertools.product(*reversed(choices)):
            parts = list(reversed(product))
            numeric = frozenset(name for _, name, _ in parts if name is not None)
            categorical = {name: own for name, _, own in parts if own is not None}
            found.append(ColumnFunction(numeric, categorical, float(scoped.scale)))
    return found


def _contrasts(coding: Coding, expression: str, reduced: bool) -> FloatArray:
    """Columns of a categorical variable as functions of its categories."""
    contrasts = coding.spec.encoder_state[expression][1]["contrasts"]
    return np.asarray(contrasts.get_coding_matrix(reduced_rank=reduced), dtype=float)


def _treatment_contrasts(coding: Coding, expression: str, reduced: bool) -> FloatArray:
    n_categories = len(_contrasts(coding, expression, reduced))
    return np.eye(n_categories)[:, int(reduced) :]


def _part(
    columns: Sequence[ColumnFunction], unit: frozenset[str], chosen: Sequence[str]
) -> FloatArray:
    """The part with these numeric columns and deviations in these categorical variables."""
    found: list[FloatArray | None] = []
    for column in columns:
        value = np.array([column.scale])
        if column.numeric != unit or not set(chosen) <= set(column.categorical):
            found.append(None)
            continue
        for name, function in column.categorical.items():
            if name not in chosen:
                value = value * function.mean()
        for name in chosen:
            function = column.categorical[name]
            value = np.kron(value, (function - function.mean())[:-1])
        found.append(value)
    n_rows = max((len(value) for value in found if value is not None), default=0)
    zeros = np.zeros(n_rows)
    return np.column_stack([zeros if value is None else value for value in found])


def _standard_rows(rows: FloatArray, coefs: tuple[int, ...]) -> FloatArray:
    """Other rows of the same span: each has one of the term's own coefficients, with weight one.

    F does not depend on that, but Satterthwaite's degrees of freedom do; these are the rows of
    lmerTest. Where contrasts do not span all categories, they are any independent ones.
    """
    own = rows[:, coefs]
    if len(rows) == len(coefs) and np.linalg.matrix_rank(own) == len(coefs):
        return np.asarray(np.linalg.solve(own, rows), dtype=np.float64)
    _, sizes, combinations = np.linalg.svd(rows, full_matrices=False)
    return combinations[sizes > 1e-10 * sizes.max(initial=0.0)]


def in_other_codings(
    terms: Sequence[Term], fit_intercept: bool
) -> tuple[list[FloatArray], list[FloatArray], FloatArray] | None:
    """The columns of treatment contrasts and those of all categories, by those of the formula.

    Returns
    -------
    treatment : list of ndarray of shape (p, ...)
        For the constant, if there is one, and every term, its columns with treatment contrasts as
        combinations of the columns of the formula.
    dummies : list of ndarray of shape (p, ...)
        The same of one column for every combination of categories.
    back : ndarray of shape (n_dummies, p)
        The columns of the formula as combinations of all those ``dummies``.
        None is returned instead if the contrasts of the formula do not span all categories.
    """
    constant = [ColumnFunction(frozenset(), {}, 1.0)] if fit_intercept else []
    own = [*constant, *(column for term in terms for column in term.columns)]
    treatment = [constant] * fit_intercept + [list(term.treatment) for term in terms]
    dummies = [constant] * fit_intercept + [_all_combinations(term) for term in terms]
    keys = {
        (column.numeric, frozenset(chosen))
        for columns in (own, *treatment, *dummies)
        for column in columns
        for chosen in _subsets(list(column.categorical))
    }

    everything = [column for columns in (own, *treatment, *dummies) for column in columns]
    together = np.vstack([_part(everything, unit, sorted(chosen)) for unit, chosen in keys])
    sizes = [len(own), *map(len, treatment), *map(len, dummies)]
    blocks = np.split(together, np.cumsum(sizes)[:-1], axis=1)
    by_own = _combinations(blocks[0], np.hstack(blocks[1:]))
    back = _combinations(np.hstack(blocks[1 + len(treatment) :]), blocks[0])
    if by_own is None or back is None:
        return None
    parts = np.split(by_own, np.cumsum(sizes[1:])[:-1], axis=1)
    return parts[: len(treatment)], parts[len(treatment) :], back


def _all_combinations(term: Term) -> list[ColumnFunction]:
    """A column for every combination of the categories of a term's variables."""
    largest = max(term.columns, key=lambda column: len(column.categorical))
    units = dict.fromkeys(column.numeric for column in term.columns)
    choices = [
        [(name, function) for function in np.eye(len(own))]
        for name, own in largest.categorical.items()
    ]
    return [
        ColumnFunction(unit, dict(reversed(product)), 1.0)
        for unit in units
        for product in itertools.product(*reversed(choices))
    ]


def _combinations(columns: FloatArray, others: FloatArray) -> FloatArray | None:
    """Others as combinations of columns; None if they are not."""
    found = np.linalg.lstsq(columns, others, rcond=None)[0]
    rest = np.abs(columns @ found - others).max(initial=0.0)
    if rest > SPANNED * np.abs(others).max(initial=0.0):
        return None
    found[np.abs(found) <= SPANNED * np.abs(found).max(initial=0.0)] = 0.0
    return np.asarray(found)
