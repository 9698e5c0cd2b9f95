"""scikit-learn's callbacks, where the installed version has them (1.9 and later)."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar

from mixedlearn.threads import one_thread

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks

    # From `fit` to its caller: scikit-learn's two wrappers of `fit` and one of ours lie between.
    FIT_STACKLEVEL = 6
except ImportError:
    FIT_STACKLEVEL = 5

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Leave the method as it is."""
        return method


__all__ = [
    "FIT_STACKLEVEL",
    "CallbackSupportMixin",
    "begin_fit",
    "run_with_progress",
    "with_callbacks",
]

Result = TypeVar("Result")


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


def run_with_progress(
    estimator: Any,
    name: str,
    n_tasks: int,
    work: Callable[[Callable[[int], None]], Result],
    task: str,
) -> Result:
    """Do some work of many equal tasks, and tell the estimator's callbacks of each.

    Parameters
    ----------
    estimator : estimator
        Stays as it is.
    name : str
        What the work is called.
    n_tasks : int
        Number of tasks.
    work : callable
        Takes a function that is to be called with the number of tasks that have been done since.
    task : str
        What a task is called.
    """
    if not getattr(estimator, "_skl_callbacks", None):
        with one_thread:
            return work(lambda n_done: None)

    def run(own: Any) -> Result:
        context = own._init_callback_context(task_name=name, max_subtasks=n_tasks)
        context.call_on_fit_task_begin(estimator=own)

        def advance(n_done: int) -> None:
            for _ in range(n_done):
                one = context.subcontext(task_name=task)
                one.call_on_fit_task_begin(estimator=own)
                one.call_on_fit_task_end(estimator=own)

        with one_thread:
            result = work(advance)
        context.call_on_fit_task_end(estimator=own)
        return result

    # The callbacks' state belongs to a copy, so that nothing is left on the estimator.
    return with_callbacks(run)(copy(estimator))
