"""scikit-learn's callbacks, where the installed version has them (1.9 and later)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks

    # From `fit` to its caller: scikit-learn's two wrappers of `fit` lie between.
    FIT_STACKLEVEL = 4
except ImportError:
    FIT_STACKLEVEL = 3

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Leave the method as it is."""
        return method


__all__ = ["FIT_STACKLEVEL", "CallbackSupportMixin", "begin_fit", "with_callbacks"]


def begin_fit(estimator: Any, X: Any, y: Any, metadata: dict[str, Any]) -> Callable[[], None]:
    """Tell the callbacks that a fit begins; what is returned tells them that it ended."""
    if not hasattr(estimator, "_init_callback_context"):
        return lambda: None
    context = estimator._init_callback_context()
    context.call_on_fit_task_begin(estimator=estimator, X=X, y=y, metadata=metadata)

    def end() -> None:
        context.call_on_fit_task_end(
            estimator=estimator, X=X, y=y, metadata=metadata, reconstruction_attributes={}
        )

    return end
