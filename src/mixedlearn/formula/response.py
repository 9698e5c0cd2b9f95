"""The response of a formula, which may be an expression."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedlearn.formula.brackets import FormulaError
from mixedlearn.formula.coding import learn_coding
from mixedlearn.formula.terms import read_terms


def evaluate_response(text: str, X: pd.DataFrame) -> NDArray[np.float64]:
    """The values of a response, shape (n,).

    Raises
    ------
    FormulaError
        If it is not one numeric term, such as ``y`` or ``log(y)``.
    ValueError
        If a value is missing.
    """
    terms = read_terms(text, text, list(X.columns), ())
    coding, columns = learn_coding(terms, X, text)
    if len(coding.terms) != 1 or len(columns) != 1 or any(coding.spans_intercept.values()):
        raise FormulaError(
            "The response must be one numeric column, or an expression such as log(y).", text, 0
        )
    return columns[0]
