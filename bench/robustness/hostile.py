"""Hostile images: 10,000 from a seeded mutator, and every file of the given folders.

Each is posted as it is, in forms and in JSON, over several connections; each is followed by a sound
image in an odd body. No answer may be a 5xx or later than its deadline, and no worker may die.
An image that breaks a promise is saved with the seed and the number that reproduce it.
"""

import argparse
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from bench.clients import bodies
from bench.clients.traffic import JSON, Call, Client, Outcome
from bench.reporting.promises import Promise, benchmark, fact, none_of
from bench.rig.service import ROOT, Server, shipped
from bench.robustness import odd_requests
from bench.robustness.mutations import mutated

CONNECTIONS = 8
DEADLINE = 10.0  # seconds: the service's default
LARGEST = 40 * 1024 * 1024  # bytes of a file: more than the service accepts
SLACK = 1.0  # seconds for the answer to be written, sent and read

Image = tuple[str, bytes]  # the number in its seed or the path, and the bytes


@dataclass(frozen=True)
class Finding:
    """An image that broke a promise."""

    source: str  # the number in its seed, or the path
    outcome: Outcome
    died: bool


def images(folders: Sequence[Path], count: int, seed: int) -> Iterator[Image]:
    """Yield mutated images, then the files of the folders."""
    for index in range(count):
        yield f"seed-{seed}-{index}", mutated(seed, index)
    for path in sorted(chain.from_iterable(folder.rglob("*") for folder in folders)):
        if path.is_file():
            with suppress(OSError), path.open("rb") as file:
                yield str(path), file.read(LARGEST)


def calls(data: bytes, turn: int, seed: int) -> list[Call]:
    """Return the image as it is and in one other form, for one of the models; and an odd body."""
    name = bodies.NAMES[turn % len(bodies.NAMES)]
    path, good = f"/predict/{name}", bodies.files(name)[0]
    other = (
        Call(path, bodies.form([data]), bodies.FORM),
        Call(path, bodies.form([good, data]), bodies.FORM),
        Call(path, bodies.in_json([data]), JSON),
        Call(path, data, "application/octet-stream"),
    )
    second = other[turn // len(bodies.NAMES) % len(other)]
    return [Call(path, data, "image/*"), second, odd_requests.call(seed, turn, name)]


class Poster:
    """Posts images over several connections, and keeps each that broke a promise."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server, self._workers, self._seed = server, set(server.workers()), seed
        self.findings: list[Finding] = []
        self.answers = Counter[int]()  # by status
        self.slowest = 0.0
        self._lock = threading.Lock()

    def post(self, several: Iterator[Image]) -> None:
        """Post all images."""
        turns = enumerate(several)
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            list(threads.map(self._work, [turns] * CONNECTIONS))

    @property
    def deaths(self) -> int:
        """The number of workers that are gone."""
        return len(self._workers - set(self._server.workers()))

    def _work(self, turns: Iterator[tuple[int, Image]]) -> None:
        with closing(Client(self._server)) as client:
            while True:
                with self._lock:
                    turn, (source, data) = next(turns, (-1, ("", b"")))
                if turn < 0:
                    return
                for call in calls(data, turn, self._seed):
                    self._judge(source, client.send(call))

    def _judge(self, source: str, outcome: Outcome) -> None:
        with self._lock:
            self.answers[outcome.status] += 1
            self.slowest = max(self.slowest, outcome.seconds)
            late = outcome.seconds > DEADLINE + SLACK
            if outcome.broke or outcome.status >= 500 or late:
                self.findings.append(Finding(source, outcome, died=bool(self.deaths)))


def save(findings: Sequence[Finding], folder: Path) -> None:
    """Save the bytes of each finding, and what they caused."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(findings):
        name, outcome = f"{number}-{Path(each.source).name}", each.outcome
        (folder / name).write_bytes(outcome.call.body)
        (folder / f"{name}.txt").write_text(
            f"{each.source}\n{outcome.call.path} as {outcome.call.content_type}\n"
            f"status {outcome.status} {outcome.code} after {outcome.seconds:.3f} s\n"
            f"a worker was dead: {each.died}\n"
        )


def judge(poster: Poster, deaths: int) -> list[Promise]:
    """Return the rows of the table."""
    answers = sorted(poster.answers.items())
    seen = ", ".join(f"{status}: {count:,}" for status, count in answers if status)
    slowest, limit = poster.slowest, f"≤ {DEADLINE:g} s, and {SLACK:g} s to be read"
    return [
        fact("answers by status", seen),
        none_of("5xx", sum(count for status, count in answers if status >= 500)),
        none_of("connections that broke", poster.answers[0]),
        none_of("workers that died", deaths),
        Promise("the slowest answer", limit, f"{slowest:.2f} s", slowest <= DEADLINE + SLACK),
    ]


def directory(text: str) -> Path:
    """Parse the path of a folder."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder.")
    return Path(text)


@benchmark(
    count=(10_000, "number of images to make"),
    seed=(1, "seed of the images"),
    save=(ROOT / "runs/hostile", "folder for findings"),
    folders={"nargs": "*", "type": directory, "metavar": "DIR", "help": "files to post too"},
)
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Post all images; return the conditions and the rows of the table."""
    with shipped(bodies.NAMES) as server:
        poster = Poster(server, options.seed)
        poster.post(images(options.folders, options.count, options.seed))
        deaths = poster.deaths
    if poster.findings:
        save(poster.findings, options.save)
        print(f"Images that broke a promise are in {options.save}.", file=sys.stderr)
    above = (
        f"{options.count:,} images of seed {options.seed}, and the files of {len(options.folders)}"
        " folders, each posted in two ways, beside sound images in odd bodies:"
        f" {poster.answers.total():,} requests."
    )
    return above, judge(poster, deaths)


if __name__ == "__main__":
    sys.exit(main())
