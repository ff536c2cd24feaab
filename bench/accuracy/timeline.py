"""When each alert was pending and when it fired, from the series ``ALERTS`` of Prometheus.

Knows the labels of that series; knows nothing of what the alerts mean.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.reporting.figures import table
from bench.rig.prometheus import Series


@dataclass(frozen=True, order=True)
class Alert:
    """The identity of an alert."""

    name: str
    severity: str
    window: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.severity, self.window)))


@dataclass
class Episode:
    """An alert, from its first sample to the time without one, in seconds since 1970."""

    alert: Alert
    began: float
    fired: float | None = None
    ended: float | None = None  # None if the alert lasted to the end


def episodes(alerts: Sequence[Series], step: float, end: float) -> list[Episode]:
    """Return the episodes in the order of their beginnings.

    ``alerts`` has a sample every ``step`` seconds until ``end`` for each instance of an alert; a
    firing instance prevails.
    """
    firing = defaultdict[Alert, dict[float, bool]](dict)
    for series in alerts:
        labels = series.labels
        alert = Alert(labels["alertname"], labels.get("severity", ""), labels.get("window", ""))
        for at, _ in series.samples:
            fires = labels["alertstate"] == "firing"
            firing[alert][at] = fires or firing[alert].get(at, False)
    found: list[Episode] = []
    for alert, states in firing.items():
        last = -math.inf
        for at in sorted(states):
            if at > last + 1.5 * step:
                found.append(Episode(alert, at))
            if states[at] and found[-1].fired is None:
                found[-1].fired = at
            found[-1].ended = at + step if at + step <= end else None
            last = at
    return sorted(found, key=lambda each: (each.began, each.alert))


def markdown(found: Sequence[Episode], begin: float, day: float) -> str:
    """Return a table; its times are those of days that last ``day`` seconds."""

    rows = []
    for each in found:
        times = (each.began, each.fired, each.ended)
        clock = ["" if at is None else on_the_clock(at - begin, day) for at in times]
        rows.append([f"`{each.alert.name}`", each.alert.severity, each.alert.window, *clock])
    return table(["Alert", "Severity", "Window", "Pending", "Firing", "Ended"], rows)


def on_the_clock(seconds: float, day: float) -> str:
    """Format a time since the beginning of the first day, as a day and a time of the day."""
    minutes = int(seconds / day * 1440)
    return f"day {minutes // 1440 + 1}, {minutes % 1440 // 60:02}:{minutes % 60:02}"
