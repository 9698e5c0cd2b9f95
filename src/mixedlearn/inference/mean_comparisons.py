"""Comparisons of marginal means and slopes, with p-values adjusted for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.inference._adjustments import adjusted, chosen_adjustment
from mixedlearn.inference._contrast_methods import check_method, contrast_weights
from mixedlearn.inference._models import check_level
from mixedlearn.inference._text import ResultTable, in_lines, lines_html, table_html, table_text
from mixedlearn.inference.marginal_means import (
    MarginalMeans,
    as_names,
    basis_text,
    marginal_means,
    value_text,
    warn_of_unknown,
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MeanComparisons:
    """Comparisons of marginal means or slopes, from `compare_means`.

    Attributes
    ----------
    table : DataFrame
        A row for every contrast, family by family: ``estimate``, ``std_error``, ``df``,
        ``t_value``, and ``p_value``, ``lower`` and ``upper``, which are adjusted. What cannot be
        estimated is NaN.
    means : MarginalMeans
        What is compared.
    by : tuple of str
        The columns within whose categories means are compared: each is a family.
    method : str
        The method, or "given".
    adjust : str or None
        The adjustment.
    level : float
        Level of the intervals.
    linear_functions : DataFrame of shape (n_rows, p)
        Every row of the table as weights of the coefficients, such as `contrast_test` takes.

    See Also
    --------
    compare_means : Computes it.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_cake
    >>> from mixedlearn.inference import compare_means, marginal_means
    >>> model = lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", load_cake().frame)
    >>> comparisons = compare_means(marginal_means(model, "recipe"))
    >>> comparisons.method, comparisons.adjust
    ('pairwise', 'tukey')
    >>> comparisons.table["p_value"].round(3).to_dict()
    {'A - B': 0.82, 'A - C': 0.81, 'B - C': 1.0}
    """

    table: pd.DataFrame
    means: MarginalMeans
    by: tuple[str, ...]
    method: str
    adjust: str | None
    level: float
    linear_functions: pd.DataFrame

    def __repr__(self) -> str:
        return f"{in_lines(self.heading)}\n{table_text(self.table)}\n{self.note}"

    def _repr_html_(self) -> str:
        return lines_html(self.heading) + table_html(self.table) + lines_html(self.note)

    @property
    def heading(self) -> str:
        """What the table has."""
        within = f", within {' and '.join(self.by)}" if self.by else ""
        return f"{self.means.heading}: {self.method} contrasts{within}"

    @property
    def note(self) -> str:
        """What the table rests on, in lines."""
        what = "not adjusted" if self.adjust is None else f"adjusted ({self.adjust})"
        basis = basis_text(self.means, int(self.table["estimate"].isna().sum()))
        return in_lines(f"p-values and {100.0 * self.level:g}% intervals {what}; {basis}")


def compare_means(
    means: Any,
    method: Any = "pairwise",
    *,
    variables: str | Sequence[str] = (),
    by: str | Sequence[str] | None = None,
    reference: Any = None,
    adjust: str | None = "auto",
    level: float | None = None,
    **options: Any,
) -> MeanComparisons:
    """Compare marginal means, or slopes, with each other.

    Parameters
    ----------
    means : MarginalMeans or MixedLinearRegressor
        What `marginal_means` or `marginal_slopes` gives; or a fitted model, whose marginal means of
        ``variables`` are compared.
    method : str, dict, DataFrame or array-like, default="pairwise"
        "pairwise": every two means; "control": each with the ``reference``; "consecutive": each
        with the one before; "polynomial": linear, quadratic and further trends over means at equal
        steps, in their order, up to degree six. Or weights of the means: an array of shape (m,) or
        (c, m), a DataFrame with a row for each contrast and a column for each mean, or a dict that
        has for the name of each contrast its weights, a sequence or a dict by means.
    variables : str or sequence of str, default=()
        With a model: the columns whose categories are compared.
    by : str or sequence of str, default=None
        Columns within whose categories means are compared. None: those of ``means``. () compares
        all means with each other.
    reference : object, default=None
        With "control": the category, or the tuple of categories, that others are compared with;
        None: the first.
    adjust : {"auto", "tukey", "dunnett", "mvt", "holm", "bonferroni"} or None, default="auto"
        How p-values and intervals allow for the number of comparisons in a family, that is, within
        one combination of the categories of ``by``. "tukey", for "pairwise": the studentized
        range. "mvt": the largest of the family's t statistics with their correlations, a
        multivariate t distribution; "dunnett" is the same for "control". "holm" and "bonferroni":
        of p-values alone; intervals with "holm" are Bonferroni's. "auto": "tukey" for "pairwise",
        "dunnett" for "control", "mvt" for "consecutive", None for the others.
    level : float, default=None
        Level of the intervals: with an adjustment, that all of a family hold together. None: that
        of ``means``.
    **options : dict
        With a model: further parameters of `marginal_means`.

    Returns
    -------
    comparisons : MeanComparisons
        With a table of the contrasts, family by family.

    Raises
    ------
    ValueError
        If there is no such method, adjustment, column or reference, an adjustment is not made for
        the method, there is only one mean, or as `marginal_means`.
    TypeError
        If ``means`` is neither marginal means nor a `MixedLinearRegressor`, or parameters for a
        model come with marginal means.
    NotFittedError
        If the model is not fitted.

    Warns
    -----
    DegenerateModelWarning
        If some contrasts cannot be estimated. They are NaN, and do not count in "holm",
        "bonferroni" and "mvt".

    Notes
    -----
    Every contrast has degrees of freedom of its own, and its p-value is that of a family in which
    all had these. The studentized range is exact for means that are independent and equally
    precise, and conservative for other independent means [1]_. The multivariate t distribution has
    the correlations of the contrasts; it is computed at quasi-random points [2]_, which are always
    the same, with an error of some 1e-6 for up to six contrasts and 1e-5 for up to ten. emmeans'
    "mvt" is the same distribution with degrees of freedom cut to an integer and random points; its
    default for comparisons with a control, "dunnettx", is an approximation.

    References
    ----------
    .. [1] Hayter, A. J. (1984). A proof of the conjecture that the Tukey-Kramer multiple
       comparisons procedure is conservative. The Annals of Statistics 12, 61-75.
    .. [2] Genz, A. & Bretz, F. (2009). Computation of Multivariate Normal and t Probabilities.
       Springer.

    Examples
    --------
    >>> from mixedlearn import lmer
    >>> from mixedlearn.datasets import load_cake
    >>> from mixedlearn.inference import compare_means, marginal_means
    >>> model = lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", load_cake().frame)
    >>> compare_means(marginal_means(model, "recipe"), "control")
    Marginal means, by recipe: control contrasts
          estimate std_error     df t_value p_value   lower  upper
    B - A   -1.478     2.456  42.00  -0.602  0.7730  -7.100  4.144
    C - A   -1.522     2.456  42.00  -0.620  0.7614  -7.144  4.100
    p-values and 95% intervals adjusted (dunnett); degrees of freedom:
    satterthwaite. Averaged over temperature (equal weights).

    Is the trend over temperatures straight?

    >>> trends = compare_means(model, "polynomial", variables="temperature").table
    >>> trends["p_value"].round(4).head(3)
    linear       0.0000
    quadratic    0.5682
    cubic        0.4172
    Name: p_value, dtype: float64
    """
    check_method(method)
    means = _as_means(means, variables, by, options)
    level = check_level(means.level if level is None else level)
    adjust = chosen_adjustment(adjust, method)
    groups = means.by if by is None else as_names(by)
    families = _families(means, groups)
    tables, rows = [], []
    for key, places in families.items():
        own = means.linear_functions.iloc[places]
        labels = _labels(own.index, groups)
        place = _reference(own.index, groups, reference, labels)
        weights, names = contrast_weights(method, labels, place)
        functions = weights @ own.to_numpy()
        index = _index(key, groups, names)
        tables.append(_family(means, functions, index, adjust, len(labels), level))
        rows.append(pd.DataFrame(functions, index=index, columns=own.columns))
    found = MeanComparisons(
        table=ResultTable(pd.concat(tables)),
        means=means,
        by=groups,
        method=method if isinstance(method, str) else "given",
        adjust=adjust,
        level=level,
        linear_functions=pd.concat(rows),
    )
    warn_of_unknown(found.table, "compare_means")
    return found


def _as_means(
    means: Any, variables: str | Sequence[str], by: Any, options: dict[str, Any]
) -> MarginalMeans:
    if not isinstance(means, MarginalMeans):
        return marginal_means(means, variables, () if by is None else by, **options)
    if as_names(variables) or options:
        given = "variables" if as_names(variables) else next(iter(options))
        raise TypeError(
            f"{given} is for a fitted model, but marginal means were passed: pass it to "
            "marginal_means."
        )
    return means


def _families(means: MarginalMeans, groups: tuple[str, ...]) -> dict[Any, NDArray[np.intp]]:
    """The rows of every combination of the categories of some columns."""
    index = means.linear_functions.index
    for name in groups:
        if name not in index.names:
            known = [own for own in index.names if own is not None]
            raise ValueError(
                f"by names {name!r}, which the means are not by: they are by "
                f"{', '.join(map(repr, known)) or 'nothing'}."
            )
    if not groups:
        return {(): np.arange(len(index))}
    keys = list(zip(*(index.get_level_values(name) for name in groups), strict=True))
    return {
        key: np.array([k for k, own in enumerate(keys) if own == key])
        for key in dict.fromkeys(keys)
    }


def _levels(index: pd.Index, groups: tuple[str, ...]) -> list[tuple[tuple[Any, Any], ...]]:
    """For every mean the columns that are not grouped by, each with its value."""
    places = [place for place, name in enumerate(index.names) if name not in groups]
    names = [index.names[place] for place in places]
    values = [index.get_level_values(place) for place in places]
    return [
        tuple((name, own[row]) for name, own in zip(names, values, strict=True))
        for row in range(len(index))
    ]


def _labels(index: pd.Index, groups: tuple[str, ...]) -> list[str]:
    """Names of means: their categories; of numbers with the name of the column before them."""
    return [
        " ".join(
            value_text(value)
            if name is None or not isinstance(value, (int, float, np.number))
            else f"{name}{value_text(value)}"
            for name, value in own
        )
        for own in _levels(index, groups)
    ]


def _reference(
    index: pd.Index, groups: tuple[str, ...], reference: Any, labels: Sequence[str]
) -> int:
    if reference is None:
        return 0
    wanted = reference if isinstance(reference, tuple) else (reference,)
    known = [tuple(value for _, value in own) for own in _levels(index, groups)]
    if wanted not in known:
        raise ValueError(
            f"reference={reference!r} is none of the means: they are {', '.join(labels)}."
        )
    return known.index(wanted)


def _index(key: tuple[Any, ...], groups: tuple[str, ...], names: list[str]) -> pd.Index:
    contrasts = pd.Index(names, dtype=object, name="contrast")
    if not groups:
        return contrasts.rename(None)
    values = [pd.Index([own], tupleize_cols=False) for own in key]
    return pd.MultiIndex.from_product([*values, contrasts], names=[*groups, "contrast"])


def _family(
    means: MarginalMeans,
    functions: FloatArray,
    index: pd.Index,
    adjust: str | None,
    n_means: int,
    level: float,
) -> pd.DataFrame:
    """The table of one family."""
    table = means.coefs.table(functions, index, level)
    errors = table["std_error"].to_numpy()
    is_known = np.isfinite(errors) & (errors > 0.0)
    if not is_known.any():
        return table
    known = table[is_known]
    p_value, critical = adjusted(
        adjust,
        known["t_value"].to_numpy(),
        known["p_value"].to_numpy(),
        known["df"].to_numpy(),
        means.coefs.root(functions[is_known]),
        n_means,
        level,
    )
    adjusted_values = {
        "p_value": p_value,
        "lower": known["estimate"] - critical * known["std_error"],
        "upper": known["estimate"] + critical * known["std_error"],
    }
    for name, values in adjusted_values.items():
        column = table[name].to_numpy(copy=True)
        column[is_known] = values
        table = table.assign(**{name: column})
    return table
