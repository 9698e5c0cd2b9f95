r"""Hypotheses about the coefficients: rows L of ``L beta = 0``.

Notation
--------
Types I and II come from the Cholesky root R of ``X'X = R'R`` (the forward Doolittle method of
Goodnight 1979): the rows of a term's columns, scaled to a unit diagonal, are that term adjusted for
all columns before it and not for those after it. Type I takes the columns in their order; type II
puts the terms that contain the term last; type III is `design.Term.marginal`. A term contains
another if it has all of its variables and more, of which none is numeric: a line within each
category does not contain the categories' effects, which are the lines' heights at zero.

With ``X N = 0``, a row l can be estimated if ``l'N = 0``. If aliased columns are left out, as those
of a formula are, the model is that without them, and a row without weight on them can be estimated
as well.

Empty cells leave the marginal hypothesis of a term without an estimate. Type III is then what SAS
(Goodnight 1980) and lmerTest call so: with M the combinations of the columns that are left, in
treatment contrasts, that give the dummies of all combinations of categories, the rows of M that
belong to a term, orthogonal to those of the terms that contain it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.engines.bases import FixedBasis, independent_columns
from mixedlearn.exceptions import did_you_mean
from mixedlearn.formula.hypotheses import in_other_codings
from mixedlearn.inference._models import as_numbers
from mixedlearn.model.fitted import FittedModel
from mixedlearn.specification import Specification, Term

FloatArray = NDArray[np.float64]

TYPES = {1: 1, 2: 2, 3: 3, "I": 1, "II": 2, "III": 3}
# Share of a row's size beyond which it is not estimable.
ESTIMABLE = 1e-8


def term_rows(model: FittedModel, kind: int) -> list[FloatArray]:
    """The hypothesis of every term, shapes (r, p_user); no rows where nothing can be tested."""
    basis, terms = model.fixed_basis, model.specification.terms
    # A single term is tested alike by all types.
    if kind == 3 and len(terms) > 1:
        rows = _with_empty_cells(model) if basis.aliased.any() else None
        return rows or [_estimable_part(term.marginal, basis) for term in terms]
    gram = _user_gram(model)
    order = np.flatnonzero(~basis.aliased)
    if kind == 1 or len(terms) == 1:
        root = _unit_root(gram, order)
        return [root[np.isin(order, term.coefs)] for term in terms]
    return [_estimable_part(_type_two(gram, order, terms, term), basis) for term in terms]


def _type_two(
    gram: FloatArray, order: NDArray[np.intp], terms: tuple[Term, ...], term: Term
) -> FloatArray:
    containing = [coef for other in _containing(terms, term) for coef in other.coefs]
    if not containing:
        # Adjusted for all others: its coefficients themselves.
        return np.eye(len(gram))[order[np.isin(order, term.coefs)]]
    is_own, is_containing = np.isin(order, term.coefs), np.isin(order, containing)
    arranged = np.concatenate(
        [order[~(is_own | is_containing)], order[is_own], order[is_containing & ~is_own]]
    )
    return _unit_root(gram, arranged)[np.isin(arranged, term.coefs)]


def _containing(terms: tuple[Term, ...], term: Term) -> list[Term]:
    return [
        other
        for other in terms
        if term.variables < other.variables and term.numeric == other.numeric
    ]


def _user_gram(model: FittedModel) -> FloatArray:
    """X'X; with an intercept, of columns shifted by constants, which changes no row but its own."""
    specification, sums = model.specification, model.sums
    return sums.products(sums.fixed_columns(specification.fixed, specification.fit_intercept))


def _unit_root(gram: FloatArray, order: NDArray[np.intp]) -> FloatArray:
    """Cholesky root of some columns of X'X in an order, with a unit diagonal: (len(order), p).

    Its rows hold what these columns say of all others, so that they can be estimated.
    """
    sizes = np.sqrt(np.diag(gram)[order])
    scaled = gram[np.ix_(order, order)] / np.outer(sizes, sizes)
    root = np.linalg.cholesky(scaled).T
    rows = np.linalg.solve(root.T, gram[order] / sizes[:, None])
    rows[:, order] = root * sizes
    return rows / (np.diag(root) * sizes)[:, None]


def _with_empty_cells(model: FittedModel) -> list[FloatArray] | None:
    """Type III of a formula with aliased columns; None where it has no categories to speak of."""
    specification, basis = model.specification, model.fixed_basis
    terms, has_constant = specification.terms, specification.fit_intercept
    if not any(column.categorical for term in terms for column in term.columns):
        return None
    codings = in_other_codings(terms, has_constant)
    if codings is None:
        return None
    treatment, dummies, back = codings
    sums = model.sums
    constant = sums.fixed_columns((), has_constant)
    user = np.hstack([constant, sums.fixed_columns(specification.fixed, False)])
    # The columns of the formula in orthonormal coordinates, without rounding error in empty cells.
    columns = sums.products(basis.columns, user)
    columns[:, basis.aliased] = -columns[:, ~basis.aliased] @ basis.null[~basis.aliased]
    left, full = columns @ np.hstack(treatment), columns @ np.hstack(dummies)
    noise = ESTIMABLE * np.linalg.norm(columns, axis=0)
    centred = left.copy()
    if has_constant:
        # A number far from zero is nearly constant.
        unit = left[:, :1] / np.linalg.norm(left[:, 0])
        centred[:, 1:] -= unit @ (unit.T @ left[:, 1:])
    kept, _ = independent_columns(centred.T @ centred, (noise @ np.abs(np.hstack(treatment))) ** 2)
    shares = np.linalg.solve(left[:, kept], full)
    sizes = np.linalg.norm(left[:, kept], axis=0)[:, None]
    shares[np.abs(shares) * sizes <= noise @ np.abs(np.hstack(dummies))] = 0.0
    starts = np.cumsum([0, *(own.shape[1] for own in treatment)])[int(has_constant) :]
    own = {
        term.name: np.flatnonzero((kept >= start) & (kept < end))
        for term, start, end in zip(terms, starts, starts[1:], strict=False)
    }
    for term in sorted(terms, key=lambda term: -len(term.variables)):
        larger = [place for other in _containing(terms, term) for place in own[other.name]]
        if larger:
            rest = shares[own[term.name]].T
            rest = rest - shares[larger].T @ np.linalg.lstsq(shares[larger].T, rest, rcond=None)[0]
            shares[own[term.name]] = rest.T
    return [_present(shares[own[term.name]]) @ back for term in terms]


def _present(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """The rows that are more than rounding error."""
    return rows[np.abs(rows).sum(axis=1) > ESTIMABLE]


def _is_estimable(rows: FloatArray, basis: FixedBasis) -> NDArray[np.bool_]:
    """Which rows can be estimated, shape (r,)."""
    is_free = is_determined(rows, basis.null)
    return np.asarray(is_free | ~rows[:, basis.undetermined].any(axis=1))


def is_determined(rows: FloatArray, null: FloatArray) -> NDArray[np.bool_]:
    """Which rows have one estimate whatever is chosen for aliased columns, shape (r,)."""
    dependence = np.abs(rows @ null)
    return np.asarray((dependence <= ESTIMABLE * (np.abs(rows) @ np.abs(null))).all(axis=1))


def _estimable_part(rows: FloatArray, basis: FixedBasis) -> FloatArray:
    """Rows that span the combinations of some rows that can be estimated."""
    if _is_estimable(rows, basis).all():
        return rows
    left, sizes, _ = np.linalg.svd(rows @ (basis.null / np.linalg.norm(basis.null, axis=0)))
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
    estimable = _is_estimable(rows, model.fixed_basis)
    if not estimable.all():
        row = int(np.argmin(estimable))
        raise ValueError(f"L ({labels[row]}) cannot be estimated: {_dependence(model, rows[row])}")
    return rows, labels


def _dependence(model: FittedModel, row: FloatArray) -> str:
    """What a combination that cannot be estimated depends on, and what to do."""
    basis, names = model.fixed_basis, model.specification.coef_names
    if model.specification.drops_aliased:
        aliased = [repr(name) for name, own in zip(names, basis.aliased, strict=True) if own]
        return (
            f"it depends on how the effects of {', '.join(aliased)} (aliased) and of the columns "
            "that make them up are divided. Use combinations that do not, or leave the aliased "
            "columns out of the formula."
        )
    dependence = np.abs(row @ basis.null)
    violated = dependence > ESTIMABLE * (np.abs(row) @ np.abs(basis.null))
    involved = [repr(names[coef]) for coef in np.flatnonzero(basis.null[:, violated].any(axis=1))]
    return (
        f"it depends on how effects are divided between the columns {', '.join(involved)}, of "
        "which some are combinations of others (aliased). Use combinations that do not, such as "
        "the difference of two categories, or leave columns out."
    )


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
