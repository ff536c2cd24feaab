"""The picture of two days: accuracy, drift and alerts over time, as Prometheus recorded them.

Knows our recorded series and matplotlib; knows nothing of what was sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.accuracy.timeline import Episode
from bench.rig.prometheus import Prometheus

STEP = 1.0  # seconds
ACCURACY = 'convserve:accuracy{window="6h"}'
LOW, HIGH = 'convserve:accuracy_low{window="6h"}', 'convserve:accuracy_high{window="6h"}'
EXPECTED = 'convserve:expected_accuracy{window="1h"}'
BASELINE = "convserve:baseline_accuracy"
CLASSES, CONFIDENCE = "convserve:class_psi", "convserve:confidence_psi"
WATCHED, ACTED = 0.1, 0.25  # of a population stability index

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panels:
    """Two days, each of so many seconds from ``begin``."""

    begin: float
    day: float
    series: Mapping[str, Points]
    episodes: Sequence[Episode]

    def hours(self, at: float) -> float:
        """Since the beginning."""
        return (at - self.begin) / self.day * 24

    def line(self, expression: str) -> tuple[list[float], list[float]]:
        """Hours and values."""
        points = self.series[expression]
        return [self.hours(at) for at, _ in points], [value for _, value in points]


def recorded(prometheus: Prometheus, begin: float, end: float) -> dict[str, Points]:
    """The series of the picture, of the one version that is served."""
    found = {}
    for expression in (ACCURACY, LOW, HIGH, EXPECTED, BASELINE, CLASSES, CONFIDENCE):
        told = prometheus.over(expression, begin, end, STEP)
        found[expression] = told[0].samples if told else []
    return found


def plot(panels: Panels, to: Path) -> None:
    """Three panels over the same hours."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (accuracy, drift, alerts) = plt.subplots(
        3, 1, sharex=True, figsize=(11, 9), layout="constrained", height_ratios=(3, 2, 2)
    )
    _accuracy(accuracy, panels)
    _drift(drift, panels)
    _alerts(alerts, panels)
    for axis in (accuracy, drift, alerts):
        axis.axvline(24, color="black", linewidth=1, linestyle=":")
    accuracy.set_title("a normal day", loc="left", fontsize="medium")
    accuracy.set_title("a shifted day", loc="right", fontsize="medium")
    alerts.set_xlim(0, 48)
    alerts.set_xticks(range(0, 49, 6))
    alerts.set_xlabel("hours")
    figure.savefig(to, dpi=110)
    plt.close(figure)


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
    for bound in (WATCHED, ACTED):
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
