"""Hostile images: 10,000 that a seeded mutator makes, and every file of the folders that are given.

Each is posted as it is, in forms and in JSON, over several connections; after each comes a sound
image in an odd body. No answer may be a 5xx, none may come after its deadline, and no worker may
die. What breaks a promise is saved with the seed and the number that make it again.
"""

import argparse
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from bench.clients import bodies
from bench.clients.traffic import JSON, Call, Client, Outcome
from bench.reporting.promises import Promise, add_page, told
from bench.rig.environment import require
from bench.rig.service import ROOT, WORKERS, Server, convserve, newest, only
from bench.robustness import odd_requests
from bench.robustness.mutations import mutated

CONNECTIONS = 8
DEADLINE = 10.0  # seconds: the service's default
LARGEST = 40 * 1024 * 1024  # bytes of a file: more than the service takes
SLACK = 1.0  # for the answer to be written, sent and read


@dataclass(frozen=True)
class Hostile:
    """Bytes that claim to be an image."""

    source: str  # the number in its seed, or the path
    data: bytes


@dataclass(frozen=True)
class Finding:
    """A promise that an image broke."""

    hostile: Hostile
    outcome: Outcome
    died: bool


def images(folders: Sequence[Path], count: int, seed: int) -> Iterator[Hostile]:
    """Those made, then the files."""
    for index in range(count):
        yield Hostile(f"seed-{seed}-{index}", mutated(seed, index))
    for path in sorted(chain.from_iterable(folder.rglob("*") for folder in folders)):
        if path.is_file():
            with suppress(OSError), path.open("rb") as file:
                yield Hostile(str(path), file.read(LARGEST))


def calls(data: bytes, turn: int, seed: int) -> list[Call]:
    """The image as it is, and in one other way, for one of the models; and an odd body."""
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
    """Posts what comes over some connections, and keeps what broke a promise."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server, self._workers, self._seed = server, set(server.workers()), seed
        self.findings: list[Finding] = []
        self.sent: dict[int, int] = {}  # answers by status
        self.slowest = 0.0
        self._lock = threading.Lock()

    def post(self, several: Iterator[Hostile]) -> None:
        """All of them."""
        turns = enumerate(several)
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for working in [threads.submit(self._work, turns) for _ in range(CONNECTIONS)]:
                working.result()

    @property
    def deaths(self) -> int:
        """Workers that are gone."""
        return len(self._workers - set(self._server.workers()))

    def _work(self, turns: Iterator[tuple[int, Hostile]]) -> None:
        client = Client(self._server, ())
        while True:
            with self._lock:
                turn, hostile = next(turns, (0, None))
            if hostile is None:
                return
            for call in calls(hostile.data, turn, self._seed):
                self._judge(hostile, client.sent(call))

    def _judge(self, hostile: Hostile, outcome: Outcome) -> None:
        with self._lock:
            self.sent[outcome.status] = self.sent.get(outcome.status, 0) + 1
            self.slowest = max(self.slowest, outcome.seconds)
            late = outcome.seconds > DEADLINE + SLACK
            if outcome.broke or outcome.status >= 500 or late:
                found = Hostile(hostile.source, outcome.call.body)
                self.findings.append(Finding(found, outcome, died=bool(self.deaths)))


def save(findings: Sequence[Finding], folder: Path) -> None:
    """The bytes of each, and what they did."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(findings):
        name = f"{number}-{Path(each.hostile.source).name}"
        (folder / name).write_bytes(each.hostile.data)
        outcome = each.outcome
        (folder / f"{name}.txt").write_text(
            f"{each.hostile.source}\n{outcome.call.path} as {outcome.call.content_type}\n"
            f"status {outcome.status} {outcome.code} after {outcome.seconds:.3f} s\n"
            f"a worker was dead: {each.died}\n"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Post all, and tell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.robustness.hostile", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="files to post too")
    parser.add_argument("--count", type=int, default=10_000, help="of images to make")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--save", type=Path, default=ROOT / "runs/hostile", help="where findings go (runs/hostile)"
    )
    add_page(parser)
    options = parser.parse_args(arguments)
    for folder in options.folders:
        if not folder.is_dir():
            parser.error(f"{folder} is not a folder.")
    require()
    models = [newest(name) for name in bodies.NAMES]
    with only(models) as served, convserve(served, workers=WORKERS) as server:
        poster = Poster(server, options.seed)
        poster.post(images(options.folders, options.count, options.seed))
        deaths = poster.deaths
    if poster.findings:
        save(poster.findings, options.save)
        print(f"What broke a promise is in {options.save}.", file=sys.stderr)
    return told(
        _promises(poster, deaths),
        page=options.page,
        name="hostile",
        above=f"{options.count:,} images of seed {options.seed}, and the files of"
        f" {len(options.folders)} folders, each posted in two ways, beside sound images in odd"
        f" bodies: {sum(poster.sent.values()):,} requests.",
    )


def _promises(poster: Poster, deaths: int) -> list[Promise]:
    statuses = sorted(poster.sent)
    bad = sum(n for status, n in poster.sent.items() if status >= 500)
    seen = ", ".join(f"{status}: {poster.sent[status]:,}" for status in statuses if status)
    lost = poster.sent.get(0, 0)
    return [
        Promise("answers by status", "", seen),
        Promise("5xx", "0", f"{bad}", not bad),
        Promise("connections that broke", "0", f"{lost}", not lost),
        Promise("workers that died", "0", f"{deaths}", not deaths),
        Promise(
            "the slowest answer",
            f"≤ {DEADLINE:g} s, and {SLACK:g} s to be read",
            f"{poster.slowest:.2f} s",
            poster.slowest <= DEADLINE + SLACK,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
