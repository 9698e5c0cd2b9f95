"""Formulas in lme4's notation: from text to the same specification that the parameters give."""

from mixedlearn.formula.model import CompiledFormula, as_pandas, columns_used, compile_formula
from mixedlearn.formula.parser import split_response
from mixedlearn.formula.response import evaluate_response
from mixedlearn.formula.text import formula_of

__all__ = [
    "CompiledFormula",
    "as_pandas",
    "columns_used",
    "compile_formula",
    "evaluate_response",
    "formula_of",
    "split_response",
]
