"""Medians, ratios with their spread, and the tables in a page of the documentation.

Knows numbers and Markdown; knows nothing of how they were measured.
"""

import math
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that ``share`` of all do not exceed; not a number where there are none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median(values: Sequence[float]) -> float:
    """The median of those that are numbers; not a number where there are none."""
    numbers = [each for each in values if not math.isnan(each)]
    return statistics.median(numbers) if numbers else math.nan


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Ours ÷ theirs within each round: the median, and the least and the most of the rounds."""
    found = [a / b for a, b in zip(ours, theirs, strict=True) if b and not math.isnan(a + b)]
    if not found:
        return "void"
    return f"{median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def number(value: float) -> str:
    """For people: three digits or more."""
    if math.isnan(value):
        return "void"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; columns after the first are right-aligned."""
    rule = ["---" if column < 1 else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def between(text: str, name: str, content: str) -> str:
    """The page ``text`` with ``content`` between the marks ``name``.

    Raises:
        ValueError: the page has no such marks, or several.
    """
    start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"The page needs one place for the table {name!r}: {start}…{end}")
    before, rest = text.split(start)
    return before + start + content + end + rest.split(end)[1]
