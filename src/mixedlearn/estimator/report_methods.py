"""Methods of the estimator that report on the fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from mixedlearn.estimator.state import FittedState
from mixedlearn.estimator.view import FittedView
from mixedlearn.inference import _criteria
from mixedlearn.inference._models import as_numbers
from mixedlearn.inference.summaries import Summary, summarise
from mixedlearn.model.correlated import refuse_noise
from mixedlearn.model.fit import objective_at


class ReportMethods(FittedState):
    """Log-likelihood, information criteria, summary."""

    def log_likelihood(self, theta: ArrayLike | None = None) -> float:
        """Log-likelihood, profiled over the fixed effects and the noise variance.

        Parameters
        ----------
        theta : array-like of shape (n_parameters,), default=None
            Where to evaluate it, in the units of ``theta_``; None: at the fit.

        Returns
        -------
        log_likelihood : float
            The restricted log-likelihood if ``reml``; infinite where the fixed effects reproduce
            the response exactly.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If theta holds no numbers, has another length than ``theta_``, is not finite, or is too
            large for the likelihood to be computed.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> elsewhere = model.log_likelihood([1.0, 0.0, 0.2])
        >>> round(model.log_likelihood(), 4), round(elsewhere, 4)
        (-871.8141, -872.1221)
        """
        check_is_fitted(self)
        if theta is None:
            return self.log_likelihood_
        values = as_numbers(theta, "theta")
        if values.shape != self.theta_.shape:
            raise ValueError(
                f"theta has shape {values.shape}, but the model has {len(self.theta_)} parameters: "
                f"give shape {self.theta_.shape}."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"theta must be finite, got NaN or infinity: {values}.")
        model = FittedView(self).model_of_fit
        refuse_noise(model)
        objective = objective_at(model, values)
        if objective == np.inf:
            raise ValueError(
                f"theta is so large ({values}) that the noise is lost in rounding error: the "
                "likelihood cannot be computed there."
            )
        return -0.5 * objective

    def aic(self) -> float:
        """Akaike's information criterion of the fit.

        Minus twice ``log_likelihood_`` (the restricted one if ``reml``) plus twice the number of
        parameters: the fixed effects that are not aliased, ``theta_`` and the noise variance. As in
        lme4, restricted likelihoods are comparable only between models of the same fixed effects.

        Returns
        -------
        aic : float
            Minus infinity where the fixed effects reproduce the response exactly.

        Raises
        ------
        NotFittedError
            Before `fit`.

        See Also
        --------
        mixedlearn.inference.conditional_aic : For predictions of the levels that were seen.

        References
        ----------
        Akaike, H. (1974). A new look at the statistical model identification. IEEE Transactions on
        Automatic Control 19, 716-723.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> round(model.aic(), 2), round(model.bic(), 2)
        (1755.63, 1774.79)
        """
        return _criteria.aic(FittedView(self).model_of_fit)

    def bic(self) -> float:
        """Schwarz's Bayesian information criterion of the fit.

        As `aic`, but a parameter costs the logarithm of the number of rows (of positive weight), as
        in lme4, for restricted likelihoods too.

        Returns
        -------
        bic : float
            Minus infinity where the fixed effects reproduce the response exactly.

        Raises
        ------
        NotFittedError
            Before `fit`.

        See Also
        --------
        aic : Which parameters count.

        References
        ----------
        Schwarz, G. (1978). Estimating the dimension of a model. Annals of Statistics 6, 461-464.

        Examples
        --------
        >>> from mixedlearn import MixedLinearRegressor
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(return_X_y=True)
        >>> model = MixedLinearRegressor(groups="Subject", random_slopes=["Days"]).fit(X, y)
        >>> round(model.bic(), 2)
        1774.79
        """
        return _criteria.bic(FittedView(self).model_of_fit)

    def summary(
        self, *, ddf: str = "satterthwaite", level: float = 0.95, std_error: bool = False
    ) -> Summary:
        """Summary of the fit, as text and as HTML in notebooks.

        Parameters
        ----------
        ddf : {"satterthwaite", "kenward-roger", "residual", "normal"}, default="satterthwaite"
            Degrees of freedom of the fixed effects; see `mixedlearn.inference.coefficient_table`.
        level : float, default=0.95
            Level of the confidence intervals.
        std_error : bool, default=False
            Whether to show standard errors of the variances.

        Returns
        -------
        summary : Summary
            Prints the model, its criterion, numbers of rows and levels, the variances, standard
            deviations and correlations of the random effects, and the fixed effects with tests and
            intervals; its tables are attributes.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If ``ddf`` or ``level`` is not allowed.

        Examples
        --------
        >>> from mixedlearn import lmer
        >>> from mixedlearn.datasets import load_sleepstudy
        >>> model = lmer("Reaction ~ Days + (1 + Days | Subject)", load_sleepstudy().frame)
        >>> print(model.summary())
        Linear mixed model fitted by REML
        <BLANKLINE>
        Formula:   Days + (1 + Days | Subject)
        Criterion: -2 log restricted likelihood 1743.6283
        AIC, BIC:  1755.6283, 1774.7860
        Rows:      180
        Levels:    Subject 18
        <BLANKLINE>
        Random effects
                          variance      sd corr_1
        Subject intercept   612.09  24.740
                Days         35.07   5.922  0.066
        noise               654.94  25.592
        <BLANKLINE>
        Fixed effects, with Satterthwaite's degrees of freedom
                  estimate std_error     df t_value  p_value lower 95% upper 95%
        intercept   251.41     6.825  17.00  36.838  < 0.001    237.01    265.80
        Days         10.47     1.546  17.00   6.771  < 0.001      7.21     13.73
        """
        return summarise(self, ddf=ddf, level=level, std_error=std_error)
