"""A normal day and a shifted one before two replicas: do alerts fire on the shifted day alone?

A real nginx in front, a real Prometheus with the shipped rules, whose time runs faster: a day lasts
minutes. Real test images; on the shifted day other classes, noisy and blurred. True labels of a
share of the predictions follow an hour later.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.accuracy import audit, panels, timeline
from bench.accuracy.days import MODEL, Traffic, days
from bench.accuracy.panels import Panels
from bench.accuracy.timeline import Episode
from bench.reporting.promises import ACCURACY, Promise, benchmark, fact, none_of, nothing
from bench.rig.nginx import balanced
from bench.rig.postgres import postgres
from bench.rig.prometheus import EVALUATE, PATIENCE, Prometheus, hastened, prometheus
from bench.rig.replicas import addresses, replicas
from bench.rig.service import ROOT, newest, only, until
from training.data.datasets import default_data_dir

RULES = ROOT / "deploy/prometheus"
LEAST = 4.0  # seconds of a window, so that it spans several scrapes
NEEDED = ("ConvserveAccuracyLow", "ConvserveClassesShifted", "ConvserveConfidenceShifted")
QUALITY = (*NEEDED, "ConvserveExpectedAccuracyLow", "ConvserveCalibrationOff")
AT_THE_END = "at the end of the normal · of the shifted day"
ROWS = {
    "accuracy by labels": panels.ACCURACY,
    "expected without labels": panels.EXPECTED,
    "stability index of classes": panels.CLASSES,
    "stability index of confidence": panels.CONFIDENCE,
}


@dataclass(frozen=True)
class Seen(Panels):
    """The traffic, alerts and series of two days."""

    images: int
    labels: int
    failed: Sequence[str]
    fallen: str  # the counters that fell

    @property
    def boundary(self) -> float:
        """The end of the normal day."""
        return self.begin + self.day

    def fired(self, names: Sequence[str], begin: float, end: float) -> list[Episode]:
        """Return the episodes of these alerts that fired in a time."""
        return [
            each
            for each in self.episodes
            if each.alert.name in names
            and (each.fired or math.inf) < end
            and (each.ended or math.inf) > begin
        ]

    def day_ends(self, expression: str) -> tuple[str, str]:
        """Return the value of an expression at the end of each day."""
        ends = (self.boundary, self.begin + 2 * self.day)
        values = [[v for at, v in self.series[expression] if at <= end][-1:] for end in ends]
        normal, shifted = (f"{value[0]:.3f}" if value else "none" for value in values)
        return normal, shifted


def run(models: Path, options: argparse.Namespace) -> Seen:
    """Run both days."""
    normal, shifted = days(options.data_dir, options.seed)
    rules = [
        hastened((RULES / name).read_text("utf-8"), 86400 / options.day, LEAST)
        for name in ("recording.yml", "alerts.yml")
    ]
    ports = addresses()
    with (
        postgres() as database,
        replicas(models, database, ports) as servers,
        balanced(list(servers.values())) as front,
        prometheus(ports, rules=rules) as watching,
    ):
        rng, delay = random.Random(options.seed), options.day / 24
        traffic = Traffic(front, options.rate, options.share, delay, rng)
        settle(watching)
        begin = time.time()
        for day in (normal, shifted):
            traffic.run(day, options.day)
        end = time.time()
        alerts = watching.over("ALERTS", begin, end, panels.STEP)
        return Seen(
            begin,
            options.day,
            panels.recorded(watching, begin, end),
            timeline.episodes(alerts, panels.STEP, end),
            traffic.images,
            traffic.labels,
            traffic.failed,
            audit.fallen(watching, end - begin),
        )


def settle(watching: Prometheus) -> None:
    """Wait until no alert is left: the missing replicas before the first scrape raise one."""
    watching.scraped(time.time())
    with suppress(TimeoutError):
        until(lambda: not watching.value("count(ALERTS)"), PATIENCE, "", every=EVALUATE / 4)


def judge(seen: Seen) -> list[Promise]:
    """Return the rows of the table."""
    early = {str(each.alert) for each in seen.fired(QUALITY, seen.begin, seen.boundary)}
    return [
        none_of("requests that failed", len(seen.failed)),
        *(fact(f"{what}, {AT_THE_END}", " · ".join(seen.day_ends(e))) for what, e in ROWS.items()),
        nothing("alerts on quality that fired on the normal day", "; ".join(sorted(early))),
        *(_needed(name, seen) for name in NEEDED),
        nothing("counters of labels that fell", seen.fallen),
    ]


def _needed(name: str, seen: Seen) -> Promise:
    fired = (each.fired or 0.0 for each in seen.fired([name], seen.boundary, math.inf))
    late = [at - seen.boundary for at in fired if at >= seen.boundary]
    measured = f"after {min(late) / seen.day * 24:.1f} h of it" if late else "never"
    return Promise(f"`{name}` fires on the shifted day", "yes", measured, bool(late))


@benchmark(
    ACCURACY,
    programs=["postgres", "prometheus", "nginx"],
    packages=["sqlalchemy", "matplotlib"],
    day=(180.0, "seconds of a day"),
    rate=(150.0, "images per second"),
    share=(0.3, "share of the predictions that are labelled"),
    seed=(1, "seed of the traffic"),
    data_dir=(default_data_dir, "folder of the data sets"),
    plot=(ROOT / "docs/drift.png", "picture to write"),
)
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Run both days, and draw them; return the episodes and the rows of the table."""
    with only([newest(MODEL)]) as models:
        seen = run(models, options)
    panels.plot(seen, options.plot)
    print(*sorted(set(seen.failed)), sep="\n", file=sys.stderr)
    above = (
        f"`{MODEL}` {newest(MODEL).name}, days of {seen.day:g} seconds, {seen.images:,}"
        f" images, {seen.labels:,} labels:\n\n"
        f"{timeline.markdown(seen.episodes, seen.begin, seen.day)}\n\nWhat was promised:"
    )
    return above, judge(seen)


if __name__ == "__main__":
    sys.exit(main())
