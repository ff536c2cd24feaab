"""A normal day and a shifted one before two replicas: do alerts fire on that one, and only there?

A real nginx before them, a real Prometheus with the shipped rules, whose time runs faster: a day
takes minutes. Real test images; on the shifted day other classes, noisy and blurred. True labels
come for a share of the predictions, an hour later.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.accuracy import audit, panels, timeline
from bench.accuracy.days import MODEL, Traffic, days
from bench.accuracy.panels import Panels, Points
from bench.accuracy.timeline import Episode, Watch
from bench.reporting.promises import ACCURACY, Promise, add_page, told
from bench.rig.environment import require
from bench.rig.nginx import balanced
from bench.rig.postgres import postgres
from bench.rig.prometheus import PATIENCE, Prometheus, hastened, prometheus
from bench.rig.replicas import addresses, replicas
from bench.rig.service import ROOT, newest, only
from training.data.datasets import default_data_dir

RULES = ROOT / "deploy/prometheus"
EVALUATE = 2.0  # seconds between two evaluations of the rules
LEAST = 4.0  # seconds of a window, for several scrapes to lie in it
NEEDED = ("ConvserveAccuracyLow", "ConvserveClassesShifted", "ConvserveConfidenceShifted")
QUALITY = (*NEEDED, "ConvserveExpectedAccuracyLow", "ConvserveCalibrationOff")


@dataclass(frozen=True)
class Seen:
    """Two days, as they went."""

    begin: float  # seconds since 1970
    day: float  # seconds
    images: int
    labels: int
    failed: Sequence[str]
    episodes: Sequence[Episode]
    series: Mapping[str, Points]
    fell: Counter[str]

    @property
    def boundary(self) -> float:
        """The end of the normal day."""
        return self.begin + self.day

    def fired(self, names: Sequence[str], begin: float, end: float) -> list[Episode]:
        """Those of such alerts that fired in that time."""
        return [
            each
            for each in self.episodes
            if each.alert.name in names
            and each.fired is not None
            and each.fired < end
            and (each.ended is None or each.ended > begin)
        ]

    def at_the_end(self, expression: str) -> tuple[str, str]:
        """What it was at the end of each day."""
        ends = (self.boundary, self.begin + 2 * self.day)
        values = [[v for at, v in self.series[expression] if at <= end][-1:] for end in ends]
        normal, shifted = (f"{value[0]:.3f}" if value else "none" for value in values)
        return normal, shifted


def lived(models: Path, options: argparse.Namespace) -> Seen:
    """Both days."""
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
        prometheus(ports, evaluate=EVALUATE, rules=rules) as watching,
    ):
        watch = Watch(watching)
        traffic = Traffic(
            front,
            rate=options.rate,
            share=options.share,
            delay=options.day / 24,
            rng=random.Random(options.seed),
        )
        settle(watching)
        begin = time.time()
        traffic.live(normal, options.day, watch.look)
        traffic.live(shifted, options.day, watch.look)
        return Seen(
            begin,
            options.day,
            traffic.images,
            traffic.labels,
            traffic.failed,
            timeline.episodes(watch.looks),
            panels.recorded(watching, begin, time.time()),
            audit.fallen(watching, time.time() - begin),
        )


def settle(watching: Prometheus) -> None:
    """Until no alert is left: before the first scrape no replica was there, which is one."""
    watching.scraped(time.time())
    end = time.monotonic() + PATIENCE
    while watching.alerts() and time.monotonic() < end:
        time.sleep(EVALUATE / 4)


def judged(seen: Seen) -> list[Promise]:
    """The lines of the table."""
    early = seen.fired(QUALITY, seen.begin, seen.boundary)
    return [
        Promise("requests that failed", "0", f"{len(seen.failed)}", not seen.failed),
        *(
            Promise(f"{what}, at the end of the normal · of the shifted day", "", " · ".join(ends))
            for what, ends in (
                ("accuracy by labels", seen.at_the_end(panels.ACCURACY)),
                ("expected without labels", seen.at_the_end(panels.EXPECTED)),
                ("stability index of classes", seen.at_the_end(panels.CLASSES)),
                ("stability index of confidence", seen.at_the_end(panels.CONFIDENCE)),
            )
        ),
        Promise(
            "alerts on quality that fired on the normal day",
            "none",
            "; ".join(sorted({str(each.alert) for each in early})) or "none",
            not early,
        ),
        *(_needed(name, seen) for name in NEEDED),
        Promise("counters of labels that fell", "none", audit.told(seen.fell), not seen.fell),
    ]


def _needed(name: str, seen: Seen) -> Promise:
    late = [
        each.fired - seen.boundary
        for each in seen.fired([name], seen.boundary, float("inf"))
        if each.fired is not None and each.fired >= seen.boundary
    ]
    measured = f"after {min(late) / seen.day * 24:.1f} h of it" if late else "never"
    return Promise(f"`{name}` fires on the shifted day", "yes", measured, bool(late))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, draw and tell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy.drift", description=__doc__)
    parser.add_argument("--day", type=float, default=180, help="seconds of a day")
    parser.add_argument("--rate", type=float, default=150, help="images a second")
    parser.add_argument("--share", type=float, default=0.3, help="of them labelled")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument(
        "--plot", type=Path, default=ROOT / "docs/drift.png", help="the picture (docs/drift.png)"
    )
    add_page(parser, ACCURACY)
    options = parser.parse_args(arguments)
    require(programs=["postgres", "prometheus", "nginx"], packages=["sqlalchemy", "matplotlib"])
    with only([newest(MODEL)]) as models:
        seen = lived(models, options)
    panels.plot(Panels(seen.begin, seen.day, seen.series, seen.episodes), options.plot)
    print(*sorted(set(seen.failed)), sep="\n", file=sys.stderr)
    return told(
        judged(seen),
        page=options.page,
        name="drift",
        above=f"`{MODEL}` {newest(MODEL).name}, days of {seen.day:g} seconds, {seen.images:,}"
        f" images, {seen.labels:,} labels:\n\n"
        f"{timeline.told(seen.episodes, seen.begin, seen.day)}\n\nWhat was promised:",
    )


if __name__ == "__main__":
    sys.exit(main())
