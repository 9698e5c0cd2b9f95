"""Names and numbers as the text of pictures."""

from __future__ import annotations

from typing import Any

import pandas as pd

# About so many letters of labels and titles are an inch.
LETTERS_PER_INCH = 11


def level_text(level: Any) -> str:
    """A level as text: that of an interaction with colons, a day without its midnight."""
    if isinstance(level, tuple):
        return ":".join(map(level_text, level))
    if isinstance(level, pd.Timestamp) and level == level.normalize():
        return str(level.date())
    return str(level)


def shortened(text: str, inches: float) -> str:
    """Beginning and end of a text that is longer than so many inches, or all of it."""
    most = max(int(LETTERS_PER_INCH * inches), 4)
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 1]}\u2026{text[-end:]}"


def plain_text(name: str) -> str:
    """A name in a text that may have formulae: its dollars are dollars."""
    return name.replace("$", r"\$")


def three_digits(value: float) -> str:
    """A size with three significant digits."""
    if value == 0.0:
        return "0"
    rounded = f"{value:.2e}"
    if not 1e-4 <= value < 1e6:
        return rounded
    decimals = max(2 - int(rounded.split("e")[1]), 0)
    return f"{float(rounded):.{decimals}f}"
