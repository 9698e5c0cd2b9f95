"""The functions that a formula knows: those of formulaic, with R's behaviour where it has the name.

What a function learns from the rows of `fit` is its state, a dict that it gets as ``_state``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from formulaic.transforms import TRANSFORMS
from formulaic.transforms.basis_spline import basis_spline
from formulaic.transforms.cubic_spline import cyclic_cubic_spline, natural_cubic_spline
from formulaic.utils.stateful_transforms import stateful_transform
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@stateful_transform
def _bs(
    x: ArrayLike, *args: Any, extrapolation: str = "extend", _state: dict, **kwargs: Any
) -> Any:
    """B-splines; beyond the rows of `fit` the outermost polynomials go on, as R's do."""
    return basis_spline(x, *args, extrapolation=extrapolation, _state=_state, **kwargs)


@stateful_transform
def _cr(
    x: ArrayLike, df: int | None = None, *, constraints: Any = "center", _state: dict, **kwargs: Any
) -> Any:
    """Natural cubic splines whose columns have means of zero, beside an intercept."""
    return natural_cubic_spline(x, df, constraints=constraints, _state=_state, **kwargs)


@stateful_transform
def _cc(
    x: ArrayLike, df: int | None = None, *, constraints: Any = "center", _state: dict, **kwargs: Any
) -> Any:
    """Cyclic cubic splines whose columns have means of zero, beside an intercept."""
    return cyclic_cubic_spline(x, df, constraints=constraints, _state=_state, **kwargs)


@stateful_transform
def _ns(
    x: ArrayLike,
    df: int | None = None,
    knots: Iterable[float] | None = None,
    *,
    _state: dict,
) -> Any:
    """Natural cubic splines with the knots of R's ``ns``: quantiles of the values, ties counted."""
    if df is not None and knots is not None:
        raise ValueError("ns takes df or knots, not both")
    values = np.asarray(x, dtype=np.float64)
    if "inner" not in _state:
        if knots is None:
            n_inner = (1 if df is None else df) - 1
            if n_inner < 0:
                raise ValueError("ns needs df of at least 1")
            knots = np.nanquantile(values, np.linspace(0.0, 1.0, n_inner + 2)[1:-1])
        _state["inner"] = np.asarray(list(knots), dtype=np.float64)
        _state["mean"], _state["spline"] = float(np.nanmean(values)), {}
    if not len(_state["inner"]):
        return values - _state["mean"]
    return natural_cubic_spline(
        values, knots=_state["inner"], constraints="center", _state=_state["spline"]
    )


def _exp10(x: Any) -> Any:
    return np.power(10.0, x)


FUNCTIONS: dict[str, Any] = {
    **TRANSFORMS,
    "bs": _bs,
    "cr": _cr,
    "cs": _cr,
    "cc": _cc,
    "ns": _ns,
    # formulaic's is the tenth power.
    "exp10": _exp10,
}
# Those whose values for a row depend on no other row, once their state is learnt.
ROW_WISE_BUILTINS = frozenset({"abs", "float", "int", "round", "bool", "pow"})
DEPENDS_ON_ROWS = frozenset({"lag"})
NAMESPACES = frozenset({"np", "contr"})


def is_stateful(name: str) -> bool:
    """Whether a function learns from the rows of `fit`."""
    return bool(getattr(FUNCTIONS.get(name), "__is_stateful_transform__", False))
