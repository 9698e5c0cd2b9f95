"""Formulas in lme4's notation: from text to the same specification that the parameters give."""

from mixedlearn.formula.brackets import FormulaError
from mixedlearn.formula.learning import refuse_learning, refuse_single_categories
from mixedlearn.formula.model import (
    CompiledFormula,
    as_pandas,
    category_rows,
    columns_used,
    compile_formula,
    terms_of,
)
from mixedlearn.formula.parser import parse, split_response
from mixedlearn.formula.response import (
    NumberOfRow,
    is_transformed,
    learn_response,
    response_columns,
    response_data,
)
from mixedlearn.formula.text import formula_of
from mixedlearn.formula.variables import Variable, fixed_variables

__all__ = [
    "CompiledFormula",
    "FormulaError",
    "NumberOfRow",
    "Variable",
    "as_pandas",
    "category_rows",
    "columns_used",
    "compile_formula",
    "fixed_variables",
    "formula_of",
    "is_transformed",
    "learn_response",
    "parse",
    "refuse_learning",
    "refuse_single_categories",
    "response_columns",
    "response_data",
    "split_response",
    "terms_of",
]
