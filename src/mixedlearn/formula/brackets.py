"""Brackets and quotes: what in a formula is a group, and what is Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

CLOSING = {"(": ")", "[": "]", "{": "}"}
QUOTES = "'\"`"


class FormulaError(ValueError):
    """An error in a formula; the message shows where."""

    def __init__(self, message: str, formula: str, position: int):
        before = formula[:position]
        line = formula.splitlines()[before.count("\n")] if formula.strip() else ""
        column = position - (before.rfind("\n") + 1)
        super().__init__(f"{message}\n    {line}\n    {' ' * column}^")
        self.message, self.formula, self.position = message, formula, position

    def __reduce__(self) -> tuple[type[FormulaError], tuple[str, str, int]]:
        return type(self), (self.message, self.formula, self.position)


class Brackets:
    """The brackets and quotes of a text.

    Attributes
    ----------
    text : str
    is_quoted : list of bool
        For every character whether it is in quotes.
    closing : dict of int to int
        For every opening bracket, where it is closed.
    enclosing : list of int
        For every character, the innermost bracket around it; -1 where there is none.
    functions : tuple of str
        The functions whose arguments are a random term if they have a bar: ``cs(visit | id)``.
    """

    def __init__(self, text: str, functions: Sequence[str] = ()):
        self.text = text
        self.functions = tuple(functions)
        self.is_quoted = [False] * len(text)
        self.closing: dict[int, int] = {}
        self.enclosing = [-1] * len(text)
        opened: list[int] = []
        quote = -1
        for position, character in enumerate(text):
            self.enclosing[position] = opened[-1] if opened else -1
            if quote >= 0:
                self.is_quoted[position] = True
                # A backslash escapes in Python's strings, not in the name of a column.
                backslashes = re.search(r"\\*$", text[quote + 1 : position])
                is_escaped = text[quote] != "`" and backslashes and len(backslashes[0]) % 2
                if character == text[quote] and not is_escaped:
                    quote = -1
            elif character in QUOTES:
                quote, self.is_quoted[position] = position, True
            elif character in CLOSING:
                opened.append(position)
            elif character in CLOSING.values():
                if not opened or CLOSING[text[opened[-1]]] != character:
                    raise FormulaError(
                        f"{character!r} closes nothing: the parentheses do not match.",
                        text,
                        position,
                    )
                self.closing[opened.pop()] = position
                self.enclosing[position] = opened[-1] if opened else -1
        if quote >= 0:
            raise FormulaError("The quote is not closed.", text, quote)
        if opened:
            raise FormulaError(f"{text[opened[-1]]!r} is not closed.", text, opened[-1])

    def outside(self, character: str) -> Iterator[int]:
        """Where a character is neither in brackets nor in quotes."""
        return self.within(character, -1)

    def within(self, character: str, bracket: int) -> Iterator[int]:
        """Where a character is directly within a bracket."""
        for position, found in enumerate(self.text):
            is_within = self.enclosing[position] == bracket and not self.is_quoted[position]
            if found == character and is_within:
                yield position

    def is_call(self, bracket: int) -> bool:
        """Whether a bracket belongs to Python: the arguments of a function, an index."""
        before = self.text[:bracket]
        is_call = self.text[bracket] != "(" or bool(re.search(r"[\w.)\]`]$", before))
        return is_call and not self.function_of(bracket)

    def function_of(self, bracket: int) -> str:
        """The function of a random term that opens here; empty where there is none."""
        match = re.search(r"(?<![\w.`])([^\W\d]\w*)$", self.text[:bracket])
        is_known = match is not None and self.text[bracket] == "(" and match[1] in self.functions
        has_bar = is_known and any(True for _ in self.within("|", bracket))
        return match[1] if match is not None and has_bar else ""

    def start(self, bracket: int) -> int:
        """Where a group starts, at its bracket or at its function."""
        return bracket - len(self.function_of(bracket))

    def groups_with_bars(self) -> Iterator[int]:
        """Where the random terms open."""
        for bracket in sorted(self.closing):
            if any(True for _ in self.within("|", bracket)):
                around = bracket
                while around >= 0 and not self.is_call(around):
                    around = self.enclosing[around]
                if around < 0:
                    yield bracket

    def neighbours(self, bracket: int) -> tuple[int, int]:
        """Where the characters before and after a group are, blanks left out."""
        before = len(self.text[: self.start(bracket)].rstrip()) - 1
        rest = self.text[self.closing[bracket] + 1 :]
        return before, self.closing[bracket] + 1 + len(rest) - len(rest.lstrip())

    def cut(self, bracket: int) -> tuple[int, int]:
        """First and one past the last character of a random term, with its plus sign."""
        outer = bracket
        while self._is_alone(outer):
            outer = self.enclosing[outer]
        around = outer
        while around >= 0:
            self._check_is_added(around)
            around = self.enclosing[around]
        before, _ = self.neighbours(outer)
        first = before if before >= 0 and self.text[before] == "+" else self.start(outer)
        return first, self.closing[outer] + 1

    def _is_alone(self, bracket: int) -> bool:
        """Whether a group is all there is in another."""
        around = self.enclosing[bracket]
        return around >= 0 and self.neighbours(bracket) == (around, self.closing[around])

    def _check_is_added(self, bracket: int) -> None:
        before, after = self.neighbours(bracket)
        around = self.enclosing[bracket]
        end = len(self.text) if around < 0 else self.closing[around]
        if before > around and self.text[before] == "-":
            raise FormulaError(
                "A random term cannot be subtracted: leave it out.", self.text, before
            )
        for position, is_inside, allowed in (
            (before, before > around, "+"),
            (after, after < end, "+-"),
        ):
            if is_inside and self.text[position] not in allowed:
                raise FormulaError(
                    f"A random term can only be added, not joined by {self.text[position]!r}: "
                    "write ... + (effects | grouping).",
                    self.text,
                    position,
                )
