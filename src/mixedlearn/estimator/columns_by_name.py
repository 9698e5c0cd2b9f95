"""Columns of a frame that are named as the response, the weights or the offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mixedlearn.data.frames import as_frame, is_frame
from mixedlearn.data.sources import refuse_source
from mixedlearn.exceptions import did_you_mean
from mixedlearn.formula import response_columns


@dataclass(frozen=True, slots=True)
class NamedColumns:
    """Names of columns that do not belong to X, or not to X alone.

    Attributes
    ----------
    y : str or None
        None if the left-hand side of a formula says what the response is.
    response : tuple of str
        The columns of that left-hand side; empty if y is given.
    sample_weight, offset : str or None
    """

    y: str | None
    response: tuple[str, ...]
    sample_weight: str | None
    offset: str | None

    @classmethod
    def of(
        cls, names: Sequence[str], left: str, y: Any, sample_weight: Any, offset: Any
    ) -> NamedColumns:
        """Check the names against those that there are.

        Parameters
        ----------
        names : sequence of str
        left : str
            The left-hand side of the formula; empty if there is none.
        y, sample_weight, offset : str or None

        Raises
        ------
        ValueError
            If one is no name of a column, or there is no response.
        """
        given = {"y": y, "sample_weight": sample_weight, "offset": offset}
        for parameter, name in given.items():
            if name is None:
                continue
            if not isinstance(name, str):
                raise ValueError(
                    f"The rows of X are read batch by batch, so {parameter} must be the name of a "
                    f"column, got {type(name).__name__}: pass {parameter}='name', or pass rows "
                    "that are in memory."
                )
            check_name(name, names, parameter)
        if y is not None:
            return cls(y, (), sample_weight, offset)
        if not left:
            raise ValueError(
                "The rows of X are read batch by batch, and y is None: pass the name of the column "
                "that holds the response, y='name'."
            )
        response = tuple(response_columns(left, names))
        for name in response:
            check_name(name, names, "the left-hand side of the formula")
        return cls(None, response, sample_weight, offset)

    @property
    def beside_X(self) -> frozenset[str]:
        """The columns that are not X's."""
        return frozenset(self._given)

    @property
    def all(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys([*self.response, *self._given]))

    @property
    def _given(self) -> list[str]:
        own = (self.y, self.sample_weight, self.offset)
        return [name for name in own if name is not None]

    def values(self, frame: Any) -> tuple[Any, Any, Any]:
        """The response, the weights and the offset of the rows of a frame."""
        y = frame[list(self.response)] if self.y is None else frame[self.y]
        weights = None if self.sample_weight is None else frame[self.sample_weight]
        return y, weights, None if self.offset is None else frame[self.offset]


def names_given(y: Any, sample_weight: Any, offset: Any) -> dict[str, str]:
    """The names of columns among arguments that may be values instead, by argument."""
    given = {"y": y, "sample_weight": sample_weight, "offset": offset}
    return {argument: name for argument, name in given.items() if isinstance(name, str)}


def column_of(X: Any, name: str, parameter: str) -> Any:
    """The column of X that a parameter names.

    Raises
    ------
    ValueError
        If there is none, X has no names, or its rows are not in memory.
    """
    return _frame_with(X, name, parameter)[name]


def columns_of_frame(X: Any, y: Any, sample_weight: Any, offset: Any) -> tuple[Any, Any, Any, Any]:
    """X, the response, the weights and the offset, where y may be the name of a column of X.

    Weights and offset may be names as well then. All stay as they are if there is no name.

    Raises
    ------
    ValueError
        If a column is missing, X has no names, or y is values and others are names.
    """
    named = names_given(y, sample_weight, offset)
    if not named:
        return X, y, sample_weight, offset
    if "y" not in named:
        parameter, name = next(iter(named.items()))
        raise ValueError(
            f"{parameter}={name!r} is the name of a column, and y is not one: pass the name of the "
            f"response's column as y, or the values as {parameter}."
        )
    return split_columns(_frame_with(X, y, "y"), y, sample_weight, offset)


def split_columns(
    frame: Any, y: str | None, sample_weight: Any, offset: Any, response: Sequence[str] = ()
) -> tuple[Any, Any, Any, Any]:
    """X, the response, the weights and the offset of a frame that has them as columns.

    Columns that are named do not belong to X. Weights and offset that are no names stay as they
    are. If y is None, the response is the columns ``response``, which stay in X.

    Raises
    ------
    ValueError
        If a column is missing, or the frame is none.
    """
    given = {"y": y, "sample_weight": sample_weight, "offset": offset}
    named = names_given(y, sample_weight, offset)
    if not is_frame(frame):
        raise _no_names(y, "y")
    names = list(frame.columns)
    for parameter, name in named.items():
        check_name(name, names, parameter)
    for name in response:
        check_name(name, names, "the left-hand side of the formula")
    found = {**given, **{parameter: frame[name] for parameter, name in named.items()}}
    if y is None:
        found["y"] = frame[list(response)]
    rest = [name for name in names if name not in named.values()]
    return frame[rest], *found.values()


def _frame_with(X: Any, name: Any, parameter: str) -> Any:
    """X as a data frame that has a column."""
    refuse_source(X)
    frame = as_frame(X)
    if not is_frame(frame):
        raise _no_names(name, parameter)
    check_name(name, list(frame.columns), parameter)
    return frame


def _no_names(name: Any, parameter: str) -> ValueError:
    return ValueError(
        f"{parameter} names the column {name!r}, but X has no names: pass X as a DataFrame, or the "
        f"values as {parameter}."
    )


def check_name(name: str, names: Sequence[str], parameter: str) -> None:
    """Refuse the name of a column that is not there."""
    if name not in names:
        raise ValueError(
            f"{parameter} names the column {name!r}, which X does not have."
            f"{did_you_mean(name, names)} Its columns are: {', '.join(map(repr, names))}."
        )
