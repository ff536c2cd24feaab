"""What the ids of predictions cost, and how long a scrape takes with everything on.

Signing is timed in this process, in turn with requests of one and of 32 images to a service. Then,
after predictions and labels of every class for every published version, /metrics is scraped.
"""

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.clients import bodies
from bench.clients.labels import post_labels, predict, published
from bench.clients.wrk import closed
from bench.reporting.figures import in_turn, median, number, percentile, seconds_per_call, spread
from bench.reporting.promises import ACCURACY, Promise, benchmark, fact
from bench.rig.replicas import KEY
from bench.rig.service import MODELS, WORKERS, Server, convserve, newest, versions
from serving.feedback.ids import Signer

COUNTS = (1, 32)  # images of a request
MOST = 0.03  # of a request
SCRAPE_MS = 50.0
SCRAPES = 100
FORM = 64  # images of a request before the scrapes
FORMS = 4  # of each version
CALLS = 100  # between two readings of the clock


@dataclass(frozen=True)
class Kind:
    """A kind of request."""

    model: str
    images: int

    def __str__(self) -> str:
        return f"`{self.model}`, {self.images} image{'s' * (self.images > 1)}"


@dataclass(frozen=True)
class Round:
    """Seconds per request: for signing its ids, for the whole, and of the workers' processors."""

    ids: float
    whole: float
    processor: float


def signing(signer: Signer, kind: Kind, seconds: float) -> float:
    """Return the seconds for signing the ids of one request."""
    answers = [(label, 0.987) for label in bodies.pictures(kind.model)] * kind.images
    several, version = answers[: kind.images], int(newest(kind.model).name)
    return seconds_per_call(lambda: signer.sign(kind.model, version, several), seconds, CALLS)


def requesting(server: Server, kind: Kind, seconds: float) -> tuple[float, float]:
    """Return the seconds per request of one client, as it sees them, and of the processors."""
    pictures = bodies.files(kind.model)
    sent = bodies.forms(pictures, kind.images) if kind.images > 1 else bodies.single(pictures)
    before = sum(server.cpu().values())
    seen = closed(server.url(f"/predict/{kind.model}"), sent, clients=1, seconds=seconds)
    used = sum(server.cpu().values()) - before
    if seen.errors or not seen.per_second:
        return math.nan, math.nan
    return 1 / seen.per_second, used / (seen.per_second * max(1, round(seconds)))


def measure_ids(server: Server, options: argparse.Namespace) -> dict[Kind, list[Round]]:
    """Measure every kind of request in each round, beginning with another one."""
    kinds = [Kind(model, count) for model in options.models for count in COUNTS]
    signer, seconds = Signer([KEY], days=30), options.seconds

    def once(kind: Kind) -> Round:
        ids = signing(signer, kind, seconds / 4)
        return Round(ids, *requesting(server, kind, seconds))

    return in_turn({kind: partial(once, kind) for kind in kinds}, options.rounds)


def verifying(seconds: float) -> float:
    """Return the seconds for verifying one id."""
    signer = Signer([KEY], days=30)
    (signed,) = signer.sign("cats_vs_dogs", 1, [("cat", 0.987)])
    return seconds_per_call(lambda: signer.read(signed), seconds, CALLS)


def label_all(server: Server, options: argparse.Namespace) -> int:
    """Post predictions and labels of every class for every version; return the number of labels."""
    rng, labels = random.Random(options.seed), 0
    for model in options.models:
        pictures, names = published(model), list(bodies.pictures(model))
        for folder in versions(model):
            for _ in range(FORMS):
                several = predict(server, model, rng.choices(pictures, k=FORM), folder.name)
                labels += post_labels(
                    server, [replace(each, label=rng.choice(names)) for each in several]
                )
    return labels


def scrape(server: Server, count: int) -> tuple[list[float], int]:
    """Scrape repeatedly; return the milliseconds of each, and the size of the last in bytes."""
    found, size = [], 0
    for _ in range(count):
        began = time.perf_counter()
        status, page = server.answer("GET", "/metrics")
        found.append((time.perf_counter() - began) * 1000 if status == 200 else math.inf)
        size = len(page)
    return found, size


def judge_kind(kind: Kind, rounds: Sequence[Round]) -> list[Promise]:
    """Return the rows of one kind of request."""
    shares = [each.ids / each.whole for each in rounds]
    ids, whole = median([each.ids for each in rounds]), median([each.whole for each in rounds])
    measured = f"{spread(shares, '.2%')}: {number(ids * 1e6)} µs of {number(whole * 1000)} ms"
    kept = not any(map(math.isnan, shares)) and median(shares) < MOST
    of_processor = spread([each.ids / each.processor for each in rounds], ".2%")
    return [
        Promise(f"{kind}: ids, of the time of a request", f"< {MOST:.0%}", measured, kept),
        fact(f"{kind}: ids, of the processor time of a request", of_processor),
    ]


def judge_scrapes(took: Sequence[float], size: int, labels: int) -> list[Promise]:
    """Return the rows of /metrics."""
    middle = median(took)
    what, fast = f"a scrape after {labels:,} labels: median", bool(labels) and middle < SCRAPE_MS
    return [
        Promise(what, f"< {SCRAPE_MS:g} ms", f"{number(middle)} ms", fast),
        fact("a scrape: p99", f"{number(percentile(took, 0.99))} ms"),
        fact("a scrape: size", f"{size / 1000:,.0f} kB"),
    ]


@benchmark(
    ACCURACY,
    programs=["wrk"],
    packages=["sqlalchemy"],
    seconds=(4.0, "length of a window"),
    rounds=(5, "rounds in which the kinds of requests take turns"),
    seed=(1, "seed of the labels"),
    models=(bodies.NAMES, "models to serve"),
)
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Measure ids and scrapes; return the conditions and the rows of the table."""
    with tempfile.TemporaryDirectory(prefix="convserve-bench-") as scratch:
        usual = {"workers": WORKERS, "feedback_keys": KEY}
        usual |= {"feedback_url": f"sqlite:///{scratch}/feedback.db"}
        with convserve(MODELS, **usual) as server:
            rounds = measure_ids(server, options)
        verified = verifying(options.seconds / 4)
        images = {"keep_images": 0.1, "keep_folder": Path(scratch, "images")}
        with convserve(MODELS, **usual, **images) as server:
            labels = label_all(server, options)
            took, size = scrape(server, SCRAPES)
    above = (
        f"{WORKERS} workers, one client; medians of {options.rounds} interleaved rounds of"
        f" {options.seconds:g} seconds; in brackets the least and the most of the rounds:"
    )
    promises = [line for kind, several in rounds.items() for line in judge_kind(kind, several)]
    promises.append(fact("verifying an id", f"{number(verified * 1e6)} µs"))
    promises += judge_scrapes(took, size, labels)
    return above, promises


if __name__ == "__main__":
    sys.exit(main())
