"""When which alert was pending, and when it fired: looks at all alerts, put together.

Knows how Prometheus tells of alerts; knows nothing of what they say.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.reporting.figures import table
from bench.rig.prometheus import Prometheus

PERIOD = 1.0  # seconds between two looks
FIRING = "firing"


@dataclass(frozen=True, order=True)
class Alert:
    """What tells one from another."""

    name: str
    severity: str
    window: str

    def __str__(self) -> str:
        """As it stands beside its bar."""
        return " ".join(filter(None, (self.name, self.severity, self.window)))


@dataclass(frozen=True)
class Look:
    """The state of each alert at a time, in seconds since 1970."""

    at: float
    states: Mapping[Alert, str]


@dataclass(frozen=True)
class Episode:
    """An alert, from its first look to the look that found it gone."""

    alert: Alert
    began: float
    fired: float | None = None
    ended: float | None = None


class Watch:
    """Looks now and then."""

    def __init__(self, prometheus: Prometheus) -> None:
        self.looks: list[Look] = []
        self._prometheus, self._due = prometheus, 0.0

    def look(self) -> None:
        """If it is time."""
        now = time.time()
        if now >= self._due:
            self.looks.append(Look(now, states(self._prometheus.alerts())))
            self._due = now + PERIOD


def states(told: Sequence[Mapping[str, Any]]) -> dict[Alert, str]:
    """The state of each; of an alert on several things the one that fires."""
    found: dict[Alert, str] = {}
    for each in told:
        labels = each["labels"]
        alert = Alert(labels["alertname"], labels.get("severity", ""), labels.get("window", ""))
        if found.get(alert) != FIRING:
            found[alert] = each["state"]
    return found


def episodes(looks: Sequence[Look]) -> list[Episode]:
    """In the order of their beginnings."""
    found, running = list[Episode](), dict[Alert, Episode]()
    for look in looks:
        for alert in running.keys() - look.states.keys():
            found.append(replace(running.pop(alert), ended=look.at))
        for alert, state in look.states.items():
            episode = running.setdefault(alert, Episode(alert, look.at))
            if state == FIRING and episode.fired is None:
                running[alert] = replace(episode, fired=look.at)
    return sorted([*found, *running.values()], key=lambda each: (each.began, each.alert))


def told(found: Sequence[Episode], begin: float, day: float) -> str:
    """A table; the times are those of days that last ``day`` seconds."""

    def clock(at: float | None) -> str:
        return "" if at is None else on_the_clock(at - begin, day)

    rows = [
        [
            f"`{each.alert.name}`",
            each.alert.severity,
            each.alert.window,
            *map(clock, (each.began, each.fired, each.ended)),
        ]
        for each in found
    ]
    return table(["Alert", "Severity", "Window", "Pending", "Firing", "Ended"], rows)


def on_the_clock(seconds: float, day: float) -> str:
    """A time since the beginning of the first day, as a day and a time of the day."""
    minutes = int(seconds / day * 1440)
    return f"day {minutes // 1440 + 1}, {minutes % 1440 // 60:02}:{minutes % 60:02}"
