"""The summary of a fitted model: what R's ``summary`` prints, as text and as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from mixedlearn.covariance.algebra import correlations
from mixedlearn.inference._kenward_roger import why_not
from mixedlearn.inference._models import (
    about_undetermined,
    model_of,
    undetermined_coefs,
    view_of,
)
from mixedlearn.inference._noise_parameters import residual_errors
from mixedlearn.inference._text import ResultTable, in_lines, table_html, table_text
from mixedlearn.inference._uncertainty import rests_on_variances
from mixedlearn.inference.tables import coefficient_estimates, variance_errors
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.residual_parameters import residual_parameters
from mixedlearn.model.sampling import monte_carlo_errors

DDF_NAMES = {
    "satterthwaite": "Satterthwaite's degrees of freedom",
    "kenward-roger": "Kenward and Roger's standard errors and degrees of freedom",
    "residual": "residual degrees of freedom",
    "normal": "the normal distribution",
}

# The same beside a residual structure.
DDF_NAMES_OF_NOISE = {
    **DDF_NAMES,
    "satterthwaite": "Satterthwaite's degrees of freedom (observed information)",
    "kenward-roger": (
        "Kenward and Roger's standard errors and degrees of freedom (linear, observed information)"
    ),
}

SINGULAR = "Singular fit: a variance is zero, or random effects are perfectly correlated."
LIBERAL = (
    "With few levels Satterthwaite's tests reject too often here, Kenward and Roger's do not: "
    'summary(ddf="kenward-roger").'
)
NOT_IDENTIFIED = "not identified"


@dataclass(frozen=True)
class Summary:
    """A summary that prints; its parts are tables.

    Attributes
    ----------
    title : str
        The kind of model and the criterion that it was fitted by.
    facts : dict of str to str
        The formula, the criterion, numbers of rows and levels.
    random_effects : DataFrame
        A row for each random effect and the noise, by factor and effect: variance, standard
        deviation, correlations with the effects before it, standard errors of the variances if
        they were asked for, and with the stochastic solver their Monte Carlo errors. Where fixed
        effects explain random effects, so that nothing is known of the variances of these, a column
        ``note`` says which are not identified.
    fixed_effects : DataFrame
        As `coefficient_table` gives it.
    tests : str
        What the tests and intervals of the fixed effects rest on.
    notes : tuple of str
        Whether the fit is singular, what could not be estimated, whether the optimum is certified.
    residual : DataFrame, optional
        The parameters of the residual structure, if there is one.
    """

    title: str
    facts: dict[str, str]
    random_effects: pd.DataFrame
    fixed_effects: pd.DataFrame
    tests: str
    notes: tuple[str, ...]
    residual: pd.DataFrame | None = None

    def __repr__(self) -> str:
        width = max(len(name) for name in self.facts) + 1
        lines = [self.title, ""]
        lines += [
            in_lines(f"{name + ':':{width}} {value}", indent=" " * (width + 1))
            for name, value in self.facts.items()
        ]
        lines += ["", "Random effects", table_text(self.random_effects)]
        if self.residual is not None:
            lines += ["", "Residual structure", table_text(self.residual)]
        lines += ["", f"Fixed effects, with {self.tests}", table_text(self.fixed_effects)]
        for note in self.notes:
            lines += ["", in_lines(note)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        facts = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self.facts.items()
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        residual = ""
        if self.residual is not None:
            residual = f"<h4>Residual structure</h4>{table_html(self.residual)}"
        return (
            f"<h3>{escape(self.title)}</h3><table>{facts}</table>"
            f"<h4>Random effects</h4>{table_html(self.random_effects)}{residual}"
            f"<h4>Fixed effects, with {escape(self.tests)}</h4>"
            f"{table_html(self.fixed_effects)}{notes}"
        )


def summarise(
    estimator: Any, *, ddf: str = "satterthwaite", level: float = 0.95, std_error: bool = False
) -> Summary:
    """Summarise a fitted model; see `MixedLinearRegressor.summary`."""
    model = model_of(estimator, takes_noise=True)
    specification = model.specification
    criterion = "REML" if specification.reml else "ML"
    kind = "Linear mixed model" if specification.factors else "Linear model without random effects"
    if model.noise is not None and not specification.factors:
        kind = "Linear model with a residual structure"
    likelihood = "restricted likelihood" if specification.reml else "likelihood"
    levels = ", ".join(
        f"{factor.name} {m:,}"
        for factor, m in zip(specification.factors, model.sums.n_levels, strict=True)
    )
    errors = monte_carlo_errors(model)
    criterion_text = f"-2 log {likelihood} {model.objective:.4f}"
    if errors is not None:
        criterion_text += f", Monte Carlo error {errors.objective:.2g}"
    facts = {
        "Formula": estimator.formula_,
        "Criterion": criterion_text,
        "AIC, BIC": f"{estimator.aic():.4f}, {estimator.bic():.4f}",
        "Rows": f"{model.sums.n_rows:,}",
    }
    if levels or model.noise is None:
        facts["Levels"] = levels or "no grouping factor"
    if errors is not None:
        facts["Solver"] = f"stochastic, {model.recipe.n_probes:,} draws of random signs"
    if model.noise is not None:
        facts["Residual"] = model.noise.description
        if model.noise.binding.series is not None:
            facts["Residual"] += f", {len(model.noise.binding.series):,} levels"
    if view_of(estimator, takes_noise=True).needs_offset:
        facts["Offset"] = "passed to fit beside X"
    return Summary(
        f"{kind} fitted by {criterion}",
        facts,
        _random_effects(model, std_error=std_error),
        ResultTable(
            coefficient_estimates(model, ddf, level).rename(
                columns={side: f"{side} {100.0 * level:g}%" for side in ("lower", "upper")}
            )
        ),
        (DDF_NAMES if model.noise is None else DDF_NAMES_OF_NOISE)[ddf],
        _notes(model, ddf),
        _residual(model, std_error=std_error),
    )


def _residual(model: FittedModel, *, std_error: bool) -> pd.DataFrame | None:
    """The parameters of the residual structure."""
    if model.noise is None:
        return None
    table = pd.DataFrame({"estimate": residual_parameters(model)})
    return ResultTable(table.assign(std_error=residual_errors(model)) if std_error else table)


def _notes(model: FittedModel, ddf: str) -> tuple[str, ...]:
    notes = list(model.warnings)
    if names := undetermined_coefs(model):
        notes.append(about_undetermined(model, names))
    if model.is_singular:
        notes[:0] = [SINGULAR, *_hint(model, ddf)]
    if not model.is_certified:
        notes.append("The optimiser stopped without a certified optimum.")
    return tuple(notes)


def _hint(model: FittedModel, ddf: str) -> list[str]:
    """Which tests of a singular fit hold their level, where others were chosen."""
    if ddf != "satterthwaite" or not rests_on_variances(model):
        return []
    if not model.specification.reml:
        return [f"{LIBERAL} Fit with reml=True for these."]
    return [] if why_not(model) else [LIBERAL]


def _random_effects(model: FittedModel, *, std_error: bool) -> pd.DataFrame:
    """Variances, deviations and correlations, laid out as lme4 prints them."""
    errors = variance_errors(model) if std_error else []
    sampled = monte_carlo_errors(model)
    most = max((len(factor.effects) for factor in model.specification.factors), default=1)
    rows, index = [], []
    for k, (factor, covariance) in enumerate(
        zip(model.specification.factors, model.covariances, strict=True)
    ):
        deviations = np.sqrt(np.diag(covariance))
        ratios = np.where(factor.structure.mask, correlations(covariance), np.nan)
        unknown = model.unknown_variances.get(k, np.zeros(len(factor.effects), bool))
        ratios[unknown] = ratios[:, unknown] = np.nan
        for i, effect in enumerate(factor.effects):
            row = {"variance": covariance[i, i]}
            if std_error:
                row["std_error"] = errors[k][i, i]
            if sampled is not None:
                row["monte_carlo_error"] = sampled.covariances[k][i, i]
            row["sd"] = deviations[i]
            for j in range(most - 1):
                row[f"corr_{j + 1}"] = ratios[i, j] if j < i else np.nan
            if model.unknown_variances:
                row["note"] = NOT_IDENTIFIED if unknown[i] else ""
            rows.append(row)
            index.append((factor.name, effect))
    noise = {"variance": model.noise_variance, "sd": np.sqrt(model.noise_variance)}
    if std_error:
        noise["std_error"] = float(errors[-1])
    if sampled is not None:
        noise["monte_carlo_error"] = sampled.noise_variance
    if model.unknown_variances:
        noise["note"] = ""
    rows.append(noise)
    index.append(("noise", ""))
    names = pd.MultiIndex.from_tuples(index, names=["factor", "effect"])
    table = pd.DataFrame(rows, index=names)
    empty = [name for name in map(str, table) if "corr" in name and table[name].isna().all()]
    return ResultTable(table.drop(columns=empty))
