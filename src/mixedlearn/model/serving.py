"""What a model needs to predict and to take further rows, and nothing else.

BLUPs are ``D Z'V^-1 (y - X beta)``: with beta known they are those of a model for the residuals
that has no fixed effects. Its sums have the columns with random slopes and the residuals, a few
numbers for each level, however many columns have a fixed effect. What is lost with the products of
all columns is everything that is said of beta's uncertainty, standard deviations of predictions
among it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedlearn.data.rows import Rows
from mixedlearn.engines.bases import FixedBasis
from mixedlearn.engines.protocol import FixedEffects
from mixedlearn.model.fitted import FittedModel
from mixedlearn.model.known import Known, Layer
from mixedlearn.model.prediction import fixed_mean
from mixedlearn.specification import Specification

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FixedPart:
    """The fixed effects of a model whose random effects are those of its residuals.

    Attributes
    ----------
    specification : Specification
        The whole model, without the terms that tests ask for.
    coef : ndarray of shape (p,)
        The intercept first if there is one.
    """

    specification: Specification
    coef: FloatArray

    @property
    def kept(self) -> list[int]:
        """The columns with a random slope."""
        slopes = (own.slopes for own in self.specification.factors)
        return sorted({column for own in slopes for column in own})

    def residual_rows(self, rows: Rows) -> Rows:
        """Rows of the residuals, with the columns that are kept."""
        response = rows.given_response - fixed_mean(self.specification, self.coef, rows.X)
        return replace(rows, X=rows.X[:, self.kept], response=response)

    def residual_model(self, model: FittedModel) -> FittedModel:
        """The model of the residuals of a fitted one, with the same random effects."""
        k = len(self.kept)
        nothing = np.empty(0)
        own = model.fixed_basis
        fixed_basis = FixedBasis(
            columns=np.empty((k + 2, 0)),
            response=np.append(np.zeros(k + 1), 1.0 / own.scale),
            scale=own.scale,
            offset=nothing,
            to_user=np.empty((0, 0)),
            aliased=np.zeros(0, dtype=bool),
            null=np.empty((0, 0)),
            undetermined=np.zeros(0, dtype=bool),
            log_det_gram=0.0,
            is_exact=own.is_exact,
            unexplained=own.unexplained,
            independence=1.0,
        )
        noise = model.fixed_effects.noise_variance
        return replace(
            model,
            recipe=replace(model.recipe, specification=self._residual_specification()),
            sums=self.residual_layer(Layer(model.sums, nothing)).sums,
            fixed_basis=fixed_basis,
            fixed_effects=FixedEffects(nothing, np.empty((0, 0)), noise),
            warnings=(),
        )

    def residual_layer(self, layer: Layer) -> Layer:
        """The same rows with their residuals."""
        own = self.specification
        coef = self.coef if own.fit_intercept else np.append(0.0, self.coef)
        return replace(layer, sums=layer.sums.of_residuals(coef, own.fixed, self.kept))

    def _residual_specification(self) -> Specification:
        own, kept = self.specification, self.kept
        factors = tuple(
            replace(factor, slopes=tuple(kept.index(column) for column in factor.slopes))
            for factor in own.factors
        )
        return replace(
            own,
            columns=tuple(own.columns[column] for column in kept),
            factors=factors,
            fixed=(),
            fit_intercept=False,
            terms=(),
        )


def separate_fixed_part(known: Known) -> tuple[FixedPart, Known]:
    """The fixed effects of a model, and what its residuals tell of the random effects."""
    part = FixedPart(replace(known.fit.specification, terms=()), known.fit.coef)
    layers = tuple(map(part.residual_layer, known.layers))
    return part, replace(known, fit=part.residual_model(known.fit), layers=layers)
