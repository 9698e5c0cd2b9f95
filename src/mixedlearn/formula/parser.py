"""The parser: where in a formula the random terms are, and what they are grouped by.

What is between the random terms, and on the left of their bars, is left to formulaic. It is cut out
with blanks in place of the rest, so that a position in a part is one in the whole formula.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from mixedlearn.covariance.structures import functions, structure_of_notation
from mixedlearn.formula.brackets import Brackets, FormulaError
from mixedlearn.formula.expressions import is_plain_name

# Formulas whose parts are kept: the same one is fitted again and again in a cross-validation.
CACHED_FORMULAS = 128
OFFSET = re.compile(r"(?<![\w.`])offset\s*\(")
NAME = re.compile(r"\s*(?:`([^`]+)`|([^\W\d][\w.]*))\s*")


@dataclass(frozen=True, slots=True)
class Grouping:
    """A grouping factor of a random term.

    Attributes
    ----------
    columns : tuple of str
        Its column, or those of an interaction.
    position : int
        Where the formula names them.
    """

    columns: tuple[str, ...]
    position: int


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """A random term, ``(effects | grouping)`` or ``cs(effects | grouping, hom = TRUE)``.

    Attributes
    ----------
    effects : str
        What is left of the bar, at its place in the formula.
    is_separate : bool
        Whether the bar is double: the terms on its left are not correlated.
    groupings : tuple of Grouping
        What is right of the bar; several for ``a/b``.
    position : int
        Where its parenthesis opens.
    structure : str
        Name of the covariance structure of its effects.
    """

    effects: str
    is_separate: bool
    groupings: tuple[Grouping, ...]
    position: int
    structure: str = "full"


@dataclass(frozen=True, slots=True)
class ParsedFormula:
    """A formula, taken apart.

    Attributes
    ----------
    text : str
        The whole.
    fixed : str
        The same with blanks in place of the random terms and the offsets.
    random : tuple of RandomTerm
    response : str
        What is on the left of "~"; empty where nothing is.
    offsets : tuple of str
        What is added to the response's mean with a coefficient of one, ``offset(...)``.
    """

    text: str
    fixed: str
    random: tuple[RandomTerm, ...]
    response: str = ""
    offsets: tuple[str, ...] = ()


@functools.lru_cache(maxsize=CACHED_FORMULAS)
def parse(text: str) -> ParsedFormula:
    """Take a formula apart.

    What is found is frozen, so that fits can share it.

    Raises
    ------
    FormulaError
        If parentheses, quotes or bars are not as they should be.
    """
    if not text.strip():
        raise FormulaError("The formula is empty: write 1 for a fixed intercept alone.", text, 0)
    whole = text
    response, text = _without_response(text)
    brackets = Brackets(text, functions())
    for position in brackets.outside("|"):
        raise FormulaError(
            "A bar stands outside of parentheses: a random term is (effects | grouping).",
            whole,
            position,
        )
    random, fixed = [], list(text)
    for start in brackets.groups_with_bars():
        random.append(_random_term(brackets, start))
        first, last = brackets.cut(start)
        fixed[first:last] = " " * (last - first)
    offsets = []
    for first, last, expression in _offsets(brackets):
        offsets.append(expression)
        fixed[first:last] = " " * (last - first)
    remaining = _without_empty_groups("".join(fixed)) if random or offsets else text
    _refuse_powers_of_names(remaining, whole)
    return ParsedFormula(whole, remaining, tuple(random), response, tuple(offsets))


def split_response(text: str) -> tuple[str, str]:
    """The two sides of a formula with a response, the right one at its place.

    Raises
    ------
    FormulaError
        If there is not one "~", or nothing on its left.
    """
    tildes = _tildes(text)
    if not tildes:
        raise FormulaError(
            "The formula has no '~': write response ~ fixed effects + (effects | grouping).",
            text,
            max(len(text.rstrip()) - 1, 0),
        )
    response = text[: tildes[0]]
    if not response.strip():
        raise FormulaError("The formula has no response on the left of '~'.", text, tildes[0])
    return response, text[tildes[0] + 1 :].strip()


def _tildes(text: str) -> list[int]:
    """Where "~" stands: there is one at most."""
    tildes = list(Brackets(text).outside("~"))
    if len(tildes) > 1:
        raise FormulaError("The formula has a second '~'.", text, tildes[1])
    return tildes


def quoted(name: str) -> str:
    """The name of a column as a formula has it: in backticks unless it is an identifier."""
    return name if is_plain_name(name) else f"`{name}`"


def find_name(name: str, text: str, start: int = 0) -> int:
    """Where the text names a column, from a position on; that position if it does not."""
    pattern = rf"`{re.escape(name)}`|(?<![\w.`]){re.escape(name)}(?!\w)"
    match = re.compile(pattern).search(text, start)
    return start if match is None else match.start()


def _without_response(text: str) -> tuple[str, str]:
    """What is on the left of "~", and the text with blanks in its place."""
    tildes = _tildes(text)
    if not tildes:
        return "", text
    position = tildes[0]
    if not text[position + 1 :].strip():
        raise FormulaError("There is nothing on the right of '~'.", text, position)
    return text[:position].strip(), " " * (position + 1) + text[position + 1 :]


def _offsets(brackets: Brackets) -> Iterator[tuple[int, int, str]]:
    """Where the offsets are, with their plus signs, and their expressions."""
    text = brackets.text
    for match in OFFSET.finditer(text):
        start, bracket = match.start(), match.end() - 1
        if brackets.is_quoted[start]:
            continue
        end = brackets.closing[bracket] + 1
        before, after = text[:start].rstrip(), text[end:].lstrip()
        is_added = before[-1:] in ("", "+") and after[:1] in ("", "+", "-")
        if brackets.enclosing[start] >= 0 or not is_added:
            raise FormulaError(
                "An offset is a term of its own that is added to the others: write ... + "
                "offset(expression).",
                text,
                start,
            )
        if not text[bracket + 1 : end - 1].strip():
            raise FormulaError(
                "The offset is empty: name a column, offset(column), or write an expression.",
                text,
                bracket,
            )
        yield len(before) - 1 if before else start, end, text[bracket + 1 : end - 1].strip()


def _random_term(brackets: Brackets, start: int) -> RandomTerm:
    text, end = brackets.text, brackets.closing[start]
    bars = list(brackets.within("|", start))
    is_separate = len(bars) > 1 and bars[1] == bars[0] + 1
    if len(bars) > 1 + is_separate:
        raise FormulaError(
            "The random term has two bars: write a term for each grouping factor, (effects | a) + "
            "(effects | b).",
            text,
            bars[1 + is_separate],
        )
    left, right = bars[0], bars[0] + 1 + is_separate
    for inner in brackets.groups_with_bars():
        if start < inner < end:
            raise FormulaError("A random term stands within another.", text, inner)
    if not text[start + 1 : left].strip():
        raise FormulaError(
            "There is nothing on the left of the bar: write (1 | grouping) for an intercept.",
            text,
            left,
        )
    comma = next((place for place in brackets.within(",", start) if place >= right), end)
    if not brackets.function_of(start) and comma < end:
        _raise_no_grouping(text, comma)
    if not text[right:comma].strip():
        raise FormulaError(
            "There is nothing on the right of the bar: name the column with the levels.",
            text,
            bars[0],
        )
    effects = " " * (start + 1) + text[start + 1 : left]
    groupings = _groupings(text, right, comma)
    structure = _structure(brackets, start, left, comma)
    return RandomTerm(effects, is_separate, groupings, start, structure)


def _structure(brackets: Brackets, start: int, bar: int, comma: int) -> str:
    """Name of the covariance structure of a random term, by its function and its ``hom``."""
    text, function = brackets.text, brackets.function_of(start)
    if not function:
        return "full"
    if text[bar : bar + 2] == "||":
        raise FormulaError(
            f"{function}() says what the covariance is: write one bar, "
            f"{function}(effects | grouping).",
            text,
            bar,
        )
    hom: bool | None = None
    rest = text[comma : brackets.closing[start]]
    if rest:
        match = re.fullmatch(r",\s*hom\s*=\s*(TRUE|FALSE|T|F|True|False)\s*", rest)
        if match is None:
            raise FormulaError(
                f"After the grouping factor {function}() takes hom = TRUE (one variance for all "
                "effects) or hom = FALSE (a variance for each).",
                text,
                comma,
            )
        hom = match[1].startswith("T")
    name = structure_of_notation(function, hom)
    if name is None:
        raise FormulaError(f"{function}() has no argument hom: leave it out.", text, comma)
    return name


def _groupings(text: str, start: int, end: int) -> tuple[Grouping, ...]:
    """The factors of ``a``, ``a:b`` or ``a/b``."""
    found: list[Grouping] = []
    names: list[str] = []
    position = start
    while True:
        match = NAME.match(text, position, end)
        if match is None:
            _raise_no_grouping(text, min(_after_blanks(text, position), end - 1))
        name = match[1] or match[2]
        if name in names:
            raise FormulaError(
                f"The interaction names the column {name!r} twice.", text, match.start()
            )
        names.append(name)
        position = match.end()
        if position == end or text[position] == "/":
            found.append(Grouping(tuple(names), start + _blanks(text[start:])))
        if position == end:
            return tuple(found)
        if text[position] not in ":/":
            _raise_no_grouping(text, position)
        position += 1


def _blanks(text: str) -> int:
    return len(text) - len(text.lstrip())


def _after_blanks(text: str, position: int) -> int:
    return position + _blanks(text[position:])


def _raise_no_grouping(text: str, position: int) -> NoReturn:
    hints = {
        "+": "write a term for each, (effects | a) + (effects | b)",
        "*": "a*b is (effects | a) + (effects | b) + (effects | a:b)",
        "(": "put what is computed into a column",
    }
    hint = hints.get(text[position], "names that are no identifiers need backticks")
    raise FormulaError(
        "The right of the bar must name columns, joined by ':' (interaction) or '/' (nesting): "
        f"{hint}.",
        text,
        position,
    )


def _without_empty_groups(fixed: str) -> str:
    """Blanks for parentheses of which only random terms were in."""
    while match := re.search(r"\+?\s*(?<![\w.)\]`])\(\s*\)", fixed):
        fixed = fixed[: match.start()] + " " * len(match[0]) + fixed[match.end() :]
    return fixed


def _refuse_powers_of_names(fixed: str, whole: str) -> None:
    """Refuse ``x^2``, which the notation takes for ``x``: few who write it know."""
    brackets = Brackets(fixed)
    for match in re.finditer(r"(?<![\w.)`\]])([^\W\d]\w*)\s*(\^|\*\*)\s*\d+", fixed):
        position = match.start(2)
        around = brackets.enclosing[position]
        while around >= 0 and not brackets.is_call(around):
            around = brackets.enclosing[around]
        if around < 0 and not brackets.is_quoted[position]:
            name, power = match[1], match[0][-1]
            raise FormulaError(
                f"In a formula {match[0]!r} is an interaction of {name!r} with itself, which is "
                f"{name!r}: write I({name}**{power}) for the power.",
                whole,
                position,
            )
