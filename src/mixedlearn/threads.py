"""Threads of BLAS: one, but for products of matrices so large that more of them gain.

Threads that share the work of a small product wait for each other. Beside other processes one of
them is often not running, and the wait is longer than the product by far.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from threadpoolctl import LibController, ThreadpoolController

# So many multiplications take about a second: what threads wait for each other beside other work,
# where one of them is often not running, is less.
LARGE_PRODUCT = 1e10


class _OneThread:
    """Context in which BLAS has one thread; contexts may be nested and overlap in threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._n_inside = 0
        self._libraries: list[LibController] | None = None
        self._allowed: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            self._n_inside += 1
            if self._n_inside > 1:
                return
            if self._libraries is None:
                # Takes longer than a small fit.
                self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            self._allowed = [library.get_num_threads() for library in self._libraries]
            self._set([1] * len(self._allowed))

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._n_inside -= 1
            if not self._n_inside:
                self._set(self._allowed)

    @property
    def is_active(self) -> bool:
        """Whether some thread of Python is within the context."""
        return self._n_inside > 0

    @property
    def n_allowed(self) -> int:
        """Number of threads that work within the context may have."""
        return max(self._allowed, default=1) if self._n_inside else 1

    def allow(self) -> None:
        """As many threads as before the context."""
        with self._lock:
            if self._n_inside:
                self._set(self._allowed)

    def restrict(self) -> None:
        """One thread again."""
        with self._lock:
            if self._n_inside:
                self._set([1] * len(self._allowed))

    def _set(self, numbers: list[int]) -> None:
        for library, number, allowed in zip(
            self._libraries or [], numbers, self._allowed, strict=True
        ):
            if allowed > 1:
                library.set_num_threads(number)


one_thread = _OneThread()


class threads_for:
    """Context within `one_thread` for some work: with all threads that are allowed if it is large.

    Parameters
    ----------
    multiplications : float
        Of the work, most of it in products of matrices.
    """

    def __init__(self, multiplications: float):
        self._is_large = multiplications >= LARGE_PRODUCT

    def __enter__(self) -> None:
        if self._is_large:
            one_thread.allow()

    def __exit__(self, *_: Any) -> None:
        if self._is_large:
            one_thread.restrict()
