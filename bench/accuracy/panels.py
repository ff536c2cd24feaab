"""The picture of two days: accuracy, drift and alerts over time, as Prometheus recorded them.

Knows our recorded series and matplotlib; knows nothing of what was sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.accuracy.timeline import Episode
from bench.reporting.pictures import picture
from bench.rig.prometheus import Prometheus

STEP = 1.0  # seconds
ACCURACY = 'convserve:accuracy{window="6h"}'
LOW, HIGH = 'convserve:accuracy_low{window="6h"}', 'convserve:accuracy_high{window="6h"}'
EXPECTED = 'convserve:expected_accuracy{window="1h"}'
BASELINE = "convserve:baseline_accuracy"
CLASSES, CONFIDENCE = "convserve:class_psi", "convserve:confidence_psi"
WATCH, ACT = 0.1, 0.25  # usual thresholds of a population stability index

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panels:
    """Two days: their series and their alerts."""

    begin: float  # seconds since 1970
    day: float  # seconds
    series: Mapping[str, Points]
    episodes: Sequence[Episode]

    def hours(self, at: float) -> float:
        """Return the hours since the beginning."""
        return (at - self.begin) / self.day * 24

    def line(self, expression: str) -> tuple[list[float], list[float]]:
        """Return hours and values."""
        points = self.series[expression]
        return [self.hours(at) for at, _ in points], [value for _, value in points]


def recorded(prometheus: Prometheus, begin: float, end: float) -> dict[str, Points]:
    """Return the series of the picture, of the single served version."""
    found = {}
    for expression in (ACCURACY, LOW, HIGH, EXPECTED, BASELINE, CLASSES, CONFIDENCE):
        series = prometheus.over(expression, begin, end, STEP)
        found[expression] = series[0].samples if series else []
    return found


def plot(panels: Panels, to: Path) -> None:
    """Draw three panels over the same hours."""
    options: dict[str, Any] = {"sharex": True, "figsize": (11, 9), "height_ratios": (3, 2, 2)}
    with picture(to, 3, 1, **options) as (_, axes):
        for axis, draw in zip(axes, (_accuracy, _drift, _alerts), strict=True):
            draw(axis, panels)
            axis.axvline(24, color="black", linewidth=1, linestyle=":")
        axes[0].set_title("a normal day", loc="left", fontsize="medium")
        axes[0].set_title("a shifted day", loc="right", fontsize="medium")
        axes[2].set_xlim(0, 48)
        axes[2].set_xticks(range(0, 49, 6))
        axes[2].set_xlabel("hours")


def _accuracy(axis: Any, panels: Panels) -> None:
    (when, low), (_, high) = panels.line(LOW), panels.line(HIGH)
    axis.fill_between(when, low, high, alpha=0.25, label="its 95 % interval (Wilson)")
    axis.plot(*panels.line(ACCURACY), label="measured by labels, 6 hours")
    axis.plot(*panels.line(EXPECTED), label="expected without labels, 1 hour", linestyle="--")
    axis.plot(*panels.line(BASELINE), label="baseline", color="grey", linewidth=1)
    axis.set_ylabel("accuracy")
    axis.legend(loc="lower left", fontsize="small")


def _drift(axis: Any, panels: Panels) -> None:
    axis.plot(*panels.line(CLASSES), label="of classes, 1 hour")
    axis.plot(*panels.line(CONFIDENCE), label="of confidence, 1 hour")
    for bound in (WATCH, ACT):
        axis.axhline(bound, color="grey", linewidth=1, linestyle=":")
    axis.set_yscale("log")
    axis.set_ylabel("stability index")
    axis.legend(loc="upper left", fontsize="small")


def _alerts(axis: Any, panels: Panels) -> None:
    names = sorted({each.alert for each in panels.episodes}, reverse=True)
    for each in panels.episodes:
        row, end = names.index(each.alert), each.ended or panels.begin + 2 * panels.day
        fired = end if each.fired is None else each.fired
        for begin, until, colour in ((each.began, fired, "gold"), (fired, end, "firebrick")):
            left = panels.hours(begin)
            axis.barh(row, panels.hours(until) - left, left=left, color=colour, height=0.7)
    axis.set_yticks(range(len(names)), [str(each) for each in names], fontsize="small")
    axis.set_ylabel("pending, firing")
