"""What reloads under load cost and leave behind: `python -m bench.robustness.reloads`.

Keeps clients at the service, and again and again publishes a version of a new number, moves the
default by `routing.json` and takes the version away, each time until every worker has changed over.
Prints memory, file descriptors and threads of the workers, size and time of a scrape at intervals,
and how many requests failed, which must be none.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clients import bodies
from bench.clients.traffic import PNG, Call, Client, clients, stopped
from bench.reporting.figures import median, number, percentile
from bench.rig.environment import require
from bench.rig.service import WORKERS, Server, convserve, newest

PATIENCE = 60.0  # seconds for all workers to change over
COLUMNS = (
    *("reloads", "changed over, ms", "longest, ms", "PSS, MB", "files", "threads"),
    *("scrape, kB", "scrape, ms", "answers", "p99, ms", "failed"),
)


@dataclass(frozen=True)
class Published:
    """A folder of models in which versions of one come and go; version 1 stays."""

    models: Path
    name: str
    source: Path  # a published version

    def publish(self, version: int) -> None:
        """Whole at once, as training does."""
        made = self.models / f".{version}.partial"
        shutil.copytree(self.source, made, ignore=shutil.ignore_patterns("SHA256SUMS", "report"))
        for path in made.glob("*.onnx"):
            with path.open("ab") as graph:
                graph.write(metadata(b"version", str(version).encode()))
        (self.models / self.name).mkdir(exist_ok=True)
        made.rename(self.models / self.name / str(version))

    def turn(self, turn: int) -> dict[str, Any]:
        """Publish, move the default, or take it all back; what the workers must come to."""
        version, rules = turn // 3 + 2, self.models / "routing.json"
        if turn % 3 == 0:
            self.publish(version)
            return {"default_version": version, "versions": [1, version]}
        if turn % 3 == 1:
            made = self.models / ".routing.json"
            made.write_text(json.dumps({self.name: {"default": 1, "labels": {"next": version}}}))
            made.rename(rules)
            return {"default_version": 1, "versions": [1, version]}
        rules.unlink()
        shutil.rmtree(self.models / self.name / str(version))
        return {"default_version": 1, "versions": [1]}


def metadata(key: bytes, text: bytes) -> bytes:
    """What, at the end of an ONNX file, sets an entry of its metadata: of two the last counts."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    return field(14, field(1, key) + field(2, text))


def reload(server: Server, published: Published, turn: int) -> float:
    """One turn, told by SIGHUP; the seconds until all workers had changed over."""
    expected = published.turn(turn)
    began = time.monotonic()
    server.process.send_signal(signal.SIGHUP)
    while not converged(server, published.name, expected):
        if time.monotonic() > began + PATIENCE:
            raise TimeoutError(f"The workers did not come to {expected} within {PATIENCE:.0f} s.")
        time.sleep(0.01)
    return time.monotonic() - began


def converged(server: Server, name: str, expected: dict[str, Any]) -> bool:
    """Whether all workers serve this."""
    states = json.loads(server.answer("GET", "/models")[1])["workers"]
    return len(states) == len(server.workers()) and all(
        state["state"] == "ready" and expected.items() <= state["models"].get(name, {}).items()
        for state in states
    )


class Table:
    """A line for what came since the last one."""

    def __init__(self, server: Server, running: Sequence[Client]) -> None:
        self._server, self._running = server, running
        self._seen = [0] * len(running)
        print(f"| {' | '.join(COLUMNS)} |", "|" + " ---: |" * len(COLUMNS), sep="\n")

    def row(self, done: int, took: Sequence[float]) -> None:
        """After so many reloads, the last of which took so many seconds each."""
        workers = self._server.workers()
        seconds, failed = self._recent()
        began = time.monotonic()
        page = self._server.answer("GET", "/metrics")[1]
        scrape = time.monotonic() - began
        cells = (
            *(done, number(median(took) * 1000), number(max(took) * 1000)),
            *(f"{self._server.pss():.1f}", held(workers, "fd"), held(workers, "task")),
            *(f"{len(page) / 1000:.0f}", f"{scrape * 1000:.0f}"),
            *(len(seconds), number(percentile(seconds, 0.99) * 1000), failed),
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)

    def _recent(self) -> tuple[list[float], int]:
        """The seconds of the requests since the last line, and how many failed of all."""
        failed, recent = 0, []
        for place, client in enumerate(self._running):
            outcomes = client.outcomes[:]
            recent += [each.seconds for each in outcomes[self._seen[place] :]]
            self._seen[place] = len(outcomes)
            failed += sum(each.status != 200 for each in outcomes)
        return recent, failed


def held(workers: Sequence[int], what: str) -> int:
    """The most of them that a worker has open (``fd``) or runs (``task``)."""
    return max(len(list(Path(f"/proc/{pid}/{what}").iterdir())) for pid in workers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.robustness.reloads", description=__doc__)
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100, help="reloads between two lines")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--model", default="digits", choices=bodies.NAMES)
    options = parser.parse_args(arguments)
    require()
    with tempfile.TemporaryDirectory(prefix="convserve-bench-") as folder:
        published = Published(Path(folder), options.model, newest(options.model))
        published.publish(1)
        settings = {"workers": options.workers, "log_level": "error"}
        calls = [Call(f"/predict/{options.model}", bodies.files(options.model)[0], PNG)]
        with convserve(published.models, **settings) as server:
            running = clients(server, calls, options.clients)
            table, took = Table(server, running), list[float]()
            for done in range(1, options.reloads + 1):
                took.append(reload(server, published, done - 1))
                if done in (1, options.reloads) or done % options.every == 0:
                    table.row(done, took)
                    took.clear()
            failed = [each for each in stopped(running) if each.status != 200]
    for failure in sorted({f"{each.status} {each.code}" for each in failed}):
        print(f"failed: {failure}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
