"""scikit-learn's callbacks, where the installed version has them (1.9 and later)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, TypeVar

from mixedlearn.search.progress import listening
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
    "FitTask",
    "begin_fit",
    "run_with_progress",
    "with_callbacks",
]

Result = TypeVar("Result")
Item = TypeVar("Item")


class FitTask:
    """A fit as callbacks see it; nothing happens if there are none.

    Parameters
    ----------
    estimator : estimator
    given : dict of str to object
        ``X``, ``y`` and ``metadata`` as callbacks get them.
    context : CallbackContext or None
    """

    def __init__(self, estimator: Any, given: dict[str, Any], context: Any):
        self._estimator = estimator
        self._given = given
        self._context = context

    def end(self) -> None:
        """Tell the callbacks that the fit ended."""
        if self._context is not None:
            self._context.call_on_fit_task_end(
                estimator=self._estimator, reconstruction_attributes={}, **self._given
            )

    def counted(self, items: Iterable[Item], name: str, task: str) -> Iterator[Item]:
        """The same items; the callbacks are told when the next one is asked for.

        ``name`` is what the work on all of them is called, ``task`` that on one.
        """
        if self._context is None:
            yield from items
            return
        whole = self._context.subcontext(task_name=name, max_subtasks=None)
        whole.call_on_fit_task_begin(estimator=self._estimator)
        for item in items:
            one = whole.subcontext(task_name=task)
            one.call_on_fit_task_begin(estimator=self._estimator)
            yield item
            one.call_on_fit_task_end(estimator=self._estimator)
        whole.call_on_fit_task_end(estimator=self._estimator)

    @contextmanager
    def searching(self) -> Iterator[None]:
        """A context in which the callbacks are told of every iteration of a search."""
        if self._context is None:
            yield
            return
        whole = self._context.subcontext(task_name="search", max_subtasks=None)
        whole.call_on_fit_task_begin(estimator=self._estimator)

        def tell() -> None:
            one = whole.subcontext(task_name="iteration")
            one.call_on_fit_task_begin(estimator=self._estimator)
            one.call_on_fit_task_end(estimator=self._estimator)

        try:
            with listening(tell):
                yield
        finally:
            whole.call_on_fit_task_end(estimator=self._estimator)


def begin_fit(estimator: Any, X: Any, y: Any, metadata: dict[str, Any]) -> FitTask:
    """Tell the callbacks that a fit begins."""
    given = {"X": X, "y": y, "metadata": metadata}
    if not hasattr(estimator, "_init_callback_context"):
        return FitTask(estimator, given, None)
    context = estimator._init_callback_context(max_subtasks=None)
    context.call_on_fit_task_begin(estimator=estimator, **given)
    return FitTask(estimator, given, context)


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
