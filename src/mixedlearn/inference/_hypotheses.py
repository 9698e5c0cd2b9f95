r"""Hypotheses about the coefficients: rows L of ``L beta = 0``.

Notation
--------
Types I and II come from the Cholesky root R of ``X'X = R'R`` (the forward Doolittle method of
Goodnight 1979): the rows of a term's columns, scaled to a unit diagonal, are that term adjusted for
all columns before it and not for those after it. Type I takes the columns in their order; type II
puts the terms that contain the term last; type III is `design.Term.marginal`. A term contains
another if it has all of its variables and more, of which none is numeric: a line within each
category does not contain the categories' effects, which are the lines' heights at zero.

The coefficients of aliased columns are zero: the model is that without them. A row with weight on
such a column makes sense only if it does not depend on which columns were left out. With ``X N =
0``, that is if ``l'N = 0``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.exceptions import did_you_mean
from mixedlearn.inference._models import as_numbers
from mixedlearn.model.fitted import FittedModel
from mixedlearn.specification import Specification, Term

FloatArray = NDArray[np.float64]

TYPES = {1: 1, 2: 2, 3: 3, "I": 1, "II": 2, "III": 3}
# Share of a row's size beyond which it is not estimable.
ESTIMABLE = 1e-8


def term_rows(model: FittedModel, kind: int) -> list[FloatArray]:
    """The hypothesis of every term, shapes (r, p_user); no rows where nothing can be tested."""
    specification, aliased = model.specification, model.fixed_basis.aliased
    terms = specification.terms
    # A single term is tested alike by all types.
    if kind == 3 and len(terms) > 1:
        null = _aliased_combinations(model)
        return [_estimable_part(term.marginal, aliased, null) for term in terms]
    gram = _user_gram(model)
    order = np.flatnonzero(~aliased)
    if kind == 1 or len(terms) == 1:
        root = _unit_root(gram, order)
        return [root[np.isin(order, term.coefs)] for term in terms]
    return [_type_two(gram, order, terms, term) for term in terms]


def _type_two(
    gram: FloatArray, order: NDArray[np.intp], terms: tuple[Term, ...], term: Term
) -> FloatArray:
    containing = [
        coef
        for other in terms
        if term.variables < other.variables and term.numeric == other.numeric
        for coef in other.coefs
    ]
    if not containing:
        # Adjusted for all others: its coefficients themselves.
        return np.eye(len(gram))[order[np.isin(order, term.coefs)]]
    is_own, is_containing = np.isin(order, term.coefs), np.isin(order, containing)
    arranged = np.concatenate(
        [order[~(is_own | is_containing)], order[is_own], order[is_containing & ~is_own]]
    )
    return _unit_root(gram, arranged)[np.isin(arranged, term.coefs)]


def _user_gram(model: FittedModel) -> FloatArray:
    """X'X; with an intercept, of columns shifted by constants, which changes no row but its own."""
    specification, sums = model.specification, model.sums
    return sums.products(sums.fixed_columns(specification.fixed, specification.fit_intercept))


def _unit_root(gram: FloatArray, order: NDArray[np.intp]) -> FloatArray:
    """Cholesky root of some columns of X'X in an order, with a unit diagonal: (len(order), p)."""
    sizes = np.sqrt(np.diag(gram)[order])
    scaled = gram[np.ix_(order, order)] / np.outer(sizes, sizes)
    root = np.linalg.cholesky(scaled).T
    rows = np.zeros((len(order), len(gram)))
    rows[:, order] = root / np.diag(root)[:, None] * sizes / sizes[:, None]
    return rows


def _aliased_combinations(model: FittedModel) -> FloatArray:
    """N, of shape (p_user, number of aliased columns), with columns of unit size."""
    specification, aliased = model.specification, model.fixed_basis.aliased
    null = np.zeros((len(aliased), int(aliased.sum())))
    if not null.shape[1]:
        return null
    gram = _user_gram(model)
    kept, left_out = np.flatnonzero(~aliased), np.flatnonzero(aliased)
    null[left_out, np.arange(len(left_out))] = 1.0
    sizes = np.sqrt(np.diag(gram)[kept])
    scaled = gram[np.ix_(kept, kept)] / np.outer(sizes, sizes)
    cross = gram[np.ix_(kept, left_out)] / sizes[:, None]
    null[kept] = -np.linalg.solve(scaled, cross) / sizes[:, None]
    if specification.fit_intercept:
        null = model.sums.unshifted(null, specification.fixed)
    return null / np.linalg.norm(null, axis=0)


def _is_estimable(
    rows: FloatArray, aliased: NDArray[np.bool_], null: FloatArray
) -> NDArray[np.bool_]:
    """Which rows can be estimated, shape (r,)."""
    dependence = np.abs(rows @ null).max(axis=1, initial=0.0)
    is_free = dependence <= ESTIMABLE * np.linalg.norm(rows, axis=1)
    return np.asarray(is_free | ~rows[:, aliased].any(axis=1))


def _estimable_part(rows: FloatArray, aliased: NDArray[np.bool_], null: FloatArray) -> FloatArray:
    """Rows that span the combinations of some rows that can be estimated."""
    if _is_estimable(rows, aliased, null).all():
        return rows
    left, sizes, _ = np.linalg.svd(rows @ null)
    least = ESTIMABLE * np.linalg.norm(rows)
    return left[:, int((sizes > least).sum()) :].T @ rows


def contrast_rows(model: FittedModel, contrasts: Any) -> tuple[FloatArray, list[Any]]:
    """Rows of shape (r, p_user) from what a user gives, and their labels.

    Raises
    ------
    ValueError
        If a coefficient is unknown, the length is wrong, a value is not finite, or a row cannot be
        estimated.
    """
    specification = model.specification
    if isinstance(contrasts, Mapping):
        if not contrasts:
            raise ValueError("L names no coefficient: give a weight to one at least.")
        contrasts = pd.DataFrame([dict(contrasts)], index=["contrast"])
    elif isinstance(contrasts, pd.Series):
        contrasts = contrasts.to_frame("contrast").T
    if isinstance(contrasts, pd.DataFrame):
        rows, labels = _named_rows(specification, contrasts), list(contrasts.index)
    else:
        rows = _plain_rows(specification, contrasts)
        labels = ["contrast"] if len(rows) == 1 else [f"row {i}" for i in range(len(rows))]
    if not np.isfinite(rows).all():
        raise ValueError("L has values that are not finite: give a number for every coefficient.")
    estimable = _is_estimable(rows, model.fixed_basis.aliased, _aliased_combinations(model))
    if not estimable.all():
        names = [
            repr(name)
            for name, is_aliased in zip(
                specification.coef_names, model.fixed_basis.aliased, strict=True
            )
            if is_aliased
        ]
        label = labels[int(np.argmin(estimable))]
        raise ValueError(
            f"L ({label}) cannot be estimated: it depends on how the effects of {', '.join(names)} "
            "(aliased) and of the columns that make them up are divided. Use combinations that "
            "do not, or leave the aliased columns out of fixed_effects."
        )
    return rows, labels


def _named_rows(specification: Specification, contrasts: pd.DataFrame) -> FloatArray:
    names = specification.coef_names
    unknown = [name for name in contrasts.columns if name not in names]
    if unknown:
        raise ValueError(
            f"L names the coefficient {unknown[0]!r}, which the model does not have."
            f"{did_you_mean(unknown[0], names)} Its coefficients are: "
            f"{', '.join(map(repr, names))}."
        )
    if contrasts.columns.has_duplicates:
        twice = contrasts.columns[contrasts.columns.duplicated()][0]
        raise ValueError(f"L names the coefficient {twice!r} twice: name it once.")
    return as_numbers(contrasts.reindex(columns=list(names), fill_value=0.0), "L")


def _plain_rows(specification: Specification, contrasts: Any) -> FloatArray:
    names = specification.coef_names
    try:
        rows = np.atleast_2d(np.asarray(contrasts, dtype=float))
    except (TypeError, ValueError) as error:
        raise ValueError(
            "L must hold numbers: an array of shape (p,) or (r, p), a dict or a DataFrame by "
            f"coefficients. ({error})"
        ) from None
    if rows.ndim != 2 or rows.shape[1] != len(names) or not len(rows):
        raise ValueError(
            f"L has shape {np.shape(contrasts)}, but there are {len(names)} coefficients "
            f"({', '.join(names)}): give an array of shape ({len(names)},) or (r, {len(names)})."
        )
    return rows
