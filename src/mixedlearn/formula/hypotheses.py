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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from formulaic.materializers.types import ScopedTerm
from numpy.typing import NDArray

from mixedlearn.formula.coding import Coding
from mixedlearn.specification import Term, column_terms

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the model matrix.

    Attributes
    ----------
    numeric : frozenset of str
        The numeric columns in the product.
    categorical : dict of str to ndarray of shape (n_categories,)
        The function of every categorical variable in it.
    scale : float
    """

    numeric: frozenset[str]
    categorical: dict[str, FloatArray]
    scale: float


def fixed_terms(coding: Coding) -> tuple[Term, ...]:
    """The terms of the fixed effects but for the intercept, without those that have no column."""
    if coding.is_plain:
        return column_terms(coding.names, coding.has_intercept)
    structure = coding.spec.structure or []
    rows = [
        (own.term, [column for scoped in own.scoped_terms for column in _columns(scoped, coding)])
        for own in structure
    ]
    # The intercept comes first among the coefficients.
    rows.sort(key=lambda row: row[0].degree > 0)
    columns = [column for _, own in rows for column in own]
    terms: list[Term] = []
    spanned: set[tuple[frozenset[str], frozenset[str]]] = set()
    start = 0
    for term, own in rows:
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


def _columns(scoped: ScopedTerm, coding: Coding) -> Iterator[_Column]:
    """The columns of a product of factors, the first factor varying fastest."""
    choices: list[list[tuple[str, str | None, FloatArray | None]]] = []
    for own in scoped.factors:
        expression = own.factor.expr
        names = coding.factor_names[expression, own.reduced]
        if coding.spans_intercept[expression]:
            contrasts = coding.spec.encoder_state[expression][1]["contrasts"]
            matrix = np.asarray(contrasts.get_coding_matrix(reduced_rank=own.reduced), dtype=float)
            choices.append([(expression, None, function) for function in matrix.T])
        else:
            choices.append([(expression, name, None) for name in names])
    for product in itertools.product(*reversed(choices)):
        yield _Column(
            frozenset(name for _, name, _ in product if name is not None),
            {expression: function for expression, _, function in product if function is not None},
            float(scoped.scale),
        )


def _part(columns: Sequence[_Column], unit: frozenset[str], chosen: Sequence[str]) -> FloatArray:
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
