"""Medians, ratios with their spread, timing, and the tables in a page of the documentation.

Knows numbers and Markdown; knows nothing of what is measured.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Each = TypeVar("Each")
Value = TypeVar("Value")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that ``share`` of all values do not exceed; NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median, without NaN; NaN if nothing is left."""
    numbers = [each for each in values if not math.isnan(each)]
    return statistics.median(numbers) if numbers else math.nan


def quotients(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours ÷ theirs of each round, without void rounds."""
    return [a / b for a, b in zip(ours, theirs, strict=True) if b and not math.isnan(a + b)]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Format the median and, in brackets, the least and the most."""
    if not values:
        return "void"
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Format ours ÷ theirs, taken within each round: median, least and most."""
    return spread(quotients(ours, theirs))


def number(value: float) -> str:
    """Format a number for people: three digits or more."""
    if math.isnan(value):
        return "void"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def rotated(values: Sequence[Each], by: int) -> list[Each]:
    """Return the values in the same order, beginning with another in each round."""
    start = by % len(values)
    return [*values[start:], *values[:start]]


def in_turn(ways: Mapping[Each, Callable[[], Value]], rounds: int) -> dict[Each, list[Value]]:
    """Call each function once a round, another one first each time; return the values by name."""
    found: dict[Each, list[Value]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in rotated(list(ways), turn):
            found[name].append(ways[name]())
    return found


def seconds_per_call(step: Callable[[], object], seconds: float, calls: int = 1) -> float:
    """Call ``step`` for ``seconds``, reading the clock every ``calls`` calls."""
    began, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(calls):
            step()
        done += calls
    return passed / done


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; columns after the first are right-aligned."""
    rule = ["---" if column < 1 else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def between(text: str, name: str, content: str) -> str:
    """Return the page ``text`` with ``content`` between the marks ``name``.

    Raises:
        ValueError: if the page does not have exactly one pair of such marks.
    """
    start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"The page needs one place for the table {name!r}: {start}…{end}")
    before, rest = text.split(start)
    return before + start + content + end + rest.split(end)[1]
