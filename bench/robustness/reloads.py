"""What reloads under load cost and leave behind: `python -m bench.robustness.reloads`.

Keeps clients busy, and repeatedly publishes a version with a new number, moves the default by
`routing.json`, and removes the version, each time until every worker serves the change. No request
may fail.
"""

import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.clients import bodies
from bench.clients.traffic import PNG, Call, Outcome, clients, recent, stopped
from bench.reporting.figures import median, number, percentile
from bench.reporting.promises import parser
from bench.rig.environment import require
from bench.rig.service import WORKERS, Server, convserve, newest, observe, until
from bench.robustness.publication import Publication, converged

PATIENCE = 60.0  # seconds for all workers to converge
COLUMNS = (
    *("reloads", "changed over, ms", "longest, ms", "PSS, MB", "files", "threads"),
    *("scrape, kB", "scrape, ms", "answers", "p99, ms", "failed"),
)


def change(publication: Publication, turn: int) -> dict[str, Any]:
    """Publish a version, move the default, or undo both; return what workers must serve then."""
    version = turn // 3 + 2
    if turn % 3 == 0:
        publication.publish(version)
        return {"default_version": version, "versions": [1, version]}
    if turn % 3 == 1:
        publication.route({"default": 1, "labels": {"next": version}})
        return {"default_version": 1, "versions": [1, version]}
    (publication.models / "routing.json").unlink()
    publication.remove(version)
    return {"default_version": 1, "versions": [1]}


def reload(server: Server, publication: Publication, turn: int) -> float:
    """Change the folder and send SIGHUP; return the seconds until all workers converged."""
    expected = change(publication, turn)
    began = time.monotonic()
    server.process.send_signal(signal.SIGHUP)
    late = f"The workers did not serve {expected} within {PATIENCE:.0f} s."
    until(lambda: converged(server, publication.name, expected), PATIENCE, late, every=0.01)
    return time.monotonic() - began


def row(server: Server, done: int, took: Sequence[float], new: Sequence[Outcome]) -> list[object]:
    """Return the cells after ``done`` reloads: what the latest ones took, and their outcomes."""
    began = time.monotonic()
    page = server.answer("GET", "/metrics")[1]
    scrape, workers = time.monotonic() - began, server.workers()
    return [
        *(done, number(median(took) * 1000), number(max(took) * 1000)),
        f"{server.pss():.1f}",
        max(observe(pid, lambda it: it.num_fds(), 0) for pid in workers),
        max(observe(pid, lambda it: it.num_threads(), 0) for pid in workers),
        *(f"{len(page) / 1000:.0f}", f"{scrape * 1000:.0f}", len(new)),
        number(percentile([each.seconds for each in new], 0.99) * 1000),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if a request failed."""
    options = parser(
        "robustness.reloads",
        __doc__,
        None,
        reloads=(1000, "number of reloads"),
        every=(100, "reloads between two rows"),
        clients=(2, "number of clients"),
        workers=(WORKERS, "number of workers"),
        model=("digits", "model to publish", *bodies.NAMES),
    ).parse_args(arguments)
    require()
    with tempfile.TemporaryDirectory(prefix="convserve-bench-") as folder:
        publication = Publication(Path(folder), options.model, newest(options.model))
        publication.publish(1)
        settings = {"workers": options.workers, "log_level": "error"}
        calls = [Call(f"/predict/{options.model}", bodies.files(options.model)[0], PNG)]
        with convserve(publication.models, **settings) as server:
            running = clients(server, calls, options.clients)
            new, failed, took = recent(running), list[Outcome](), list[float]()
            print(f"| {' | '.join(COLUMNS)} |", "|" + " ---: |" * len(COLUMNS), sep="\n")
            for done in range(1, options.reloads + 1):
                took.append(reload(server, publication, done - 1))
                if done in (1, options.reloads) or done % options.every == 0:
                    outcomes = next(new)
                    failed += (each for each in outcomes if each.status != 200)
                    cells = [*row(server, done, took, outcomes), len(failed)]
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)
                    took.clear()
            stopped(running)
            failed += (each for each in next(new) if each.status != 200)
    for failure in sorted({f"{each.status} {each.code}" for each in failed}):
        print(f"failed: {failure}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
