"""What the ids of predictions cost, and what a scrape takes with everything on.

Signing is timed in this process, in turn with whole requests of one client to a running service,
one image and 32 images each, of every model. Then, after predictions and labels of every class for
every published version, /metrics is asked again and again.
"""

import argparse
import math
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.clients import bodies
from bench.clients.labels import Predicted, all_labels, predict, published
from bench.clients.wrk import closed
from bench.reporting.figures import median, number, percentile
from bench.reporting.promises import ACCURACY, Promise, add_page, told
from bench.rig.environment import require
from bench.rig.replicas import KEY
from bench.rig.service import MODELS, WORKERS, Server, convserve, newest
from bench.throughput.serving import rotated
from serving.feedback.ids import Signer

COUNTS = (1, 32)  # images of a request
MOST = 0.03  # of a request
SCRAPE_MS = 50.0
SCRAPES = 100
FORM = 64  # images of a request before the scrapes
FORMS = 4  # of each version


@dataclass(frozen=True)
class Kind:
    """A kind of request."""

    model: str
    images: int

    def __str__(self) -> str:
        """For a row."""
        return f"`{self.model}`, {self.images} image{'s' * (self.images > 1)}"


@dataclass(frozen=True)
class Round:
    """Seconds of one request: of making its ids, of the whole, and of the workers' processors."""

    ids: float
    whole: float
    processor: float


def repeatedly(step: Callable[[], object], seconds: float) -> float:
    """The seconds of one step."""
    began, steps = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(100):
            step()
        steps += 100
    return passed / steps


def signing(signer: Signer, kind: Kind, seconds: float) -> float:
    """The seconds that the ids of one request take."""
    answers = [(label, 0.987) for label in bodies.pictures(kind.model)] * kind.images
    several, version = answers[: kind.images], int(newest(kind.model).name)
    return repeatedly(lambda: signer.sign(kind.model, version, several), seconds)


def requesting(server: Server, kind: Kind, seconds: float) -> tuple[float, float]:
    """The seconds of one request of one client: as it sees them, and of the workers' processors."""
    pictures = bodies.files(kind.model)
    sent = bodies.forms(pictures, kind.images) if kind.images > 1 else bodies.single(pictures)
    url = f"http://127.0.0.1:{server.port}/predict/{kind.model}"
    before = sum(server.cpu().values())
    seen = closed(url, sent, clients=1, seconds=seconds)
    used = sum(server.cpu().values()) - before
    if seen.errors or not seen.per_second:
        return math.nan, math.nan
    return 1 / seen.per_second, used / (seen.per_second * max(1, round(seconds)))


def taken_in_turn(server: Server, options: argparse.Namespace) -> dict[Kind, list[Round]]:
    """Every kind in each round, another one first."""
    kinds = [Kind(model, count) for model in options.models for count in COUNTS]
    signer, found = Signer([KEY], days=30), defaultdict[Kind, list[Round]](list)
    for turn in range(options.rounds):
        for kind in rotated(kinds, turn):
            ids = signing(signer, kind, options.seconds / 4)
            found[kind].append(Round(ids, *requesting(server, kind, options.seconds)))
    return found


def verifying(seconds: float) -> float:
    """The seconds of reading one id."""
    signer = Signer([KEY], days=30)
    (told,) = signer.sign("cats_vs_dogs", 3, [("cat", 0.987)])
    return repeatedly(lambda: signer.read(told), seconds)


def label_all(server: Server, options: argparse.Namespace) -> int:
    """Predictions and labels of every class for every version; how many labels."""
    rng, labels = random.Random(options.seed), 0
    for model in options.models:
        pictures, names = published(model), list(bodies.pictures(model))
        for folder in sorted(path for path in (MODELS / model).iterdir() if path.name.isdigit()):
            for _ in range(FORMS):
                several = predict(server, model, rng.choices(pictures, k=FORM), folder.name)
                given = [Predicted(each.id, each.predicted, rng.choice(names)) for each in several]
                call = all_labels(given)
                body = server.answer(call.method, call.path, call.body, call.content_type)[1]
                labels += body.count(b'"recorded"')
    return labels


def scrapes(server: Server, count: int) -> tuple[list[float], int]:
    """The milliseconds of each, and the size of the last, in bytes."""
    found, size = [], 0
    for _ in range(count):
        began = time.perf_counter()
        status, page = server.answer("GET", "/metrics")
        found.append((time.perf_counter() - began) * 1000 if status == 200 else math.inf)
        size = len(page)
    return found, size


def of_a_request(kind: Kind, rounds: Sequence[Round]) -> list[Promise]:
    """The lines of one kind of request."""
    shares = [each.ids / each.whole for each in rounds]
    ids, whole = median([each.ids for each in rounds]), median([each.whole for each in rounds])
    return [
        Promise(
            f"{kind}: ids, of the time of a request",
            f"< {MOST:.0%}",
            f"{spread(shares)}: {number(ids * 1e6)} µs of {number(whole * 1000)} ms",
            not any(map(math.isnan, shares)) and median(shares) < MOST,
        ),
        Promise(
            f"{kind}: ids, of the processor time of a request",
            "",
            spread([each.ids / each.processor for each in rounds]),
        ),
    ]


def spread(shares: Sequence[float]) -> str:
    """The median, and the least and the most."""
    return f"{median(shares):.2%} ({min(shares):.2%}–{max(shares):.2%})"


def of_scrapes(took: Sequence[float], size: int, labels: int) -> list[Promise]:
    """The lines of /metrics."""
    middle = median(took)
    return [
        Promise(
            f"a scrape after {labels:,} labels: median",
            f"< {SCRAPE_MS:g} ms",
            f"{number(middle)} ms",
            bool(labels) and middle < SCRAPE_MS,
        ),
        Promise("a scrape: p99", "", f"{number(percentile(took, 0.99))} ms"),
        Promise("a scrape: size", "", f"{size / 1000:,.0f} kB"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and tell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy.ids", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of a window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(bodies.NAMES), choices=bodies.NAMES)
    parser.add_argument("--seed", type=int, default=1)
    add_page(parser, ACCURACY)
    options = parser.parse_args(arguments)
    require(programs=["wrk"], packages=["sqlalchemy"])
    with tempfile.TemporaryDirectory(prefix="convserve-bench-") as scratch:
        usual = {
            "workers": WORKERS,
            "feedback_keys": KEY,
            "feedback_url": f"sqlite:///{scratch}/feedback.db",
        }
        with convserve(MODELS, **usual) as server:
            rounds = taken_in_turn(server, options)
        verified = verifying(options.seconds / 4)
        with convserve(
            MODELS, **usual, keep_images=0.1, keep_folder=Path(scratch, "images")
        ) as server:
            labels = label_all(server, options)
            took, size = scrapes(server, SCRAPES)
    return told(
        [
            *(line for kind, several in rounds.items() for line in of_a_request(kind, several)),
            Promise("verifying an id", "", f"{number(verified * 1e6)} µs"),
            *of_scrapes(took, size, labels),
        ],
        page=options.page,
        name="ids",
        above=f"{WORKERS} workers, one client; medians of {options.rounds} interleaved rounds of"
        f" {options.seconds:g} seconds; in brackets the least and the most of the rounds:",
    )


if __name__ == "__main__":
    sys.exit(main())
