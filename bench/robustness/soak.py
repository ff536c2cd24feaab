"""Mixed traffic for ten minutes while things go wrong: does memory stay, are promises kept?

All models, all kinds of bodies, wrong requests, clients that are slow, silent, cut short or far too
large; a worker killed now and then; a version published and removed again. Memory and latency over
time go to a CSV and a plot.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bench.clients import bodies
from bench.clients.bad_clients import BadClients
from bench.clients.probes import asked
from bench.clients.traffic import PNG, REFUSALS, Client, Outcome, clients, mixture, stopped
from bench.reporting.figures import median, number, percentile
from bench.reporting.promises import Promise, add_page, told
from bench.rig.environment import require
from bench.rig.service import MODELS, ROOT, WORKERS, Server, convserve, newest, only
from bench.robustness.kills import Kill, blameless, kill, wait_for_workers

NAME, OLD, NEW = "digits", "1", "3"  # the model whose versions change, both published here
CLIENTS, PAUSE = 6, 0.005
BAD = {
    "silent": 20,
    "slow header": 10,
    "dripping body": 10,
    "half a request": 5,
    "aborted": 5,
    "50 MB": 1,
}
CONVERGED = 30.0  # seconds for all workers to serve what is published
ASKED = 8  # requests in a row that must agree; each on a new connection, so of either worker
GROWTH, GROWTH_MB = 1.2, 10  # memory at the end, of what it was after the first fifth


@dataclass(frozen=True)
class Second:
    """One line of the CSV."""

    second: float
    pss_mb: float
    workers: int
    requests: int
    p50_ms: float
    p99_ms: float
    refused: int  # as traffic may be
    broken: int  # connections that broke under a request
    event: str


class Repository:
    """The folder that is served, and the version that comes and goes."""

    def __init__(self, folder: Path, server: Server) -> None:
        self._folder, self._server = folder / NAME, server
        self.failed: list[str] = []

    def publish(self) -> None:
        """As publishing does: a hidden sibling, then a rename."""
        hidden = self._folder / f".{NEW}.partial-soak"
        shutil.copytree(MODELS / NAME / NEW, hidden)
        hidden.rename(self._folder / NEW)
        self._converge(200, f"{NAME} {NEW} was published and is not served by all workers")

    def remove(self) -> None:
        """Out of sight, then gone."""
        hidden = self._folder / f".{NEW}.removed-soak"
        (self._folder / NEW).rename(hidden)
        shutil.rmtree(hidden)
        self._converge(404, f"{NAME} {NEW} was removed and is served still")

    def _converge(self, status: int, otherwise: str) -> None:
        os.kill(self._server.process.pid, signal.SIGHUP)  # look now
        end = time.monotonic() + CONVERGED
        while time.monotonic() < end:
            if all(self._asked() == status for _ in range(ASKED)):
                return
            time.sleep(0.5)
        self.failed.append(otherwise)

    def _asked(self) -> int:
        path = f"/predict/{NAME}?version={NEW}"
        return asked(self._server, path, bodies.files(NAME)[0], PNG, "POST")


def faults(
    server: Server, repository: Repository, kills: list[Kill], rng: random.Random
) -> Iterator[tuple[str, Callable[[], None]]]:
    """What goes wrong, one after another, for ever."""

    def one_killed() -> None:
        if done := kill(server, rng):
            kills.append(done)
        wait_for_workers(server)

    while True:
        yield "killed", one_killed
        yield "published", repository.publish
        yield "killed", one_killed
        yield "removed", repository.remove


class Watch:
    """Looks every second at what came since the last look."""

    def __init__(self, server: Server, running: Sequence[Client]) -> None:
        self._server, self._running = server, running
        self._seen = [0] * len(running)
        self._began = time.monotonic()
        self.rows: list[Second] = []

    def look(self, event: str = "") -> None:
        """One line."""
        new = list(self._new())
        answered = [each.seconds * 1000 for each in new if not each.broke]
        self.rows.append(
            Second(
                second=round(time.monotonic() - self._began, 1),
                pss_mb=round(self._server.pss(), 1),
                workers=len(self._server.workers()),
                requests=len(new),
                p50_ms=round(percentile(answered, 0.5), 2),
                p99_ms=round(percentile(answered, 0.99), 2),
                refused=sum(each.status in REFUSALS for each in new),
                broken=sum(each.broke for each in new),
                event=event,
            )
        )

    def _new(self) -> Iterator[Outcome]:
        for place, client in enumerate(self._running):
            until = len(client.outcomes)
            yield from client.outcomes[self._seen[place] : until]
            self._seen[place] = until


def soak(
    server: Server, folder: Path, options: argparse.Namespace
) -> tuple[list[Second], list[Outcome], list[Kill], list[str]]:
    """The whole of it."""
    kills: list[Kill] = []
    repository = Repository(folder, server)
    coming = faults(server, repository, kills, random.Random(options.seed))
    bad = BadClients(server.port, BAD)
    bad.start()
    running = clients(server, mixture(), CLIENTS, pause=PAUSE)
    watch = Watch(server, running)
    begin = time.monotonic()
    due = begin + options.every
    while time.monotonic() < begin + options.seconds:
        event = ""
        if time.monotonic() >= due:
            event, happen = next(coming)
            happen()
            due = time.monotonic() + options.every
        time.sleep(1)
        watch.look(event)
    outcomes = stopped(running)
    bad.stop()
    return watch.rows, outcomes, kills, repository.failed


def judged(
    rows: Sequence[Second], outcomes: Sequence[Outcome], kills: Sequence[Kill], failed: list[str]
) -> list[Promise]:
    """The lines of the table."""
    broken = [each for each in outcomes if each.broke]
    strange = [each for each in broken if not blameless(each, kills)]
    odd = Counter(
        f"{each.status} {each.code}, not {each.call.expected}"
        for each in outcomes
        if not each.broke and not each.kept
    )
    refused = Counter(each.status for each in outcomes if each.status in REFUSALS)
    fifth = max(1, len(rows) // 5)
    early, late = rows[fifth : 2 * fifth] or rows, rows[-fifth:]
    before, after = (median([each.pss_mb for each in part]) for part in (early, late))
    slow, slower = (median([each.p99_ms for each in part]) for part in (early, late))
    return [
        Promise("answers that were not promised", "none", _list(odd), not odd),
        Promise("refusals: 408, 503, 504", "", _list(refused)),
        Promise(
            "connections that broke, but for those of killed workers",
            "0",
            f"{len(strange)} of {len(broken)}",
            not strange,
        ),
        Promise("publications and removals that did not arrive", "0", f"{len(failed)}", not failed),
        Promise(
            "memory (PSS), the second fifth and the last",
            f"≤ {GROWTH} × and {GROWTH_MB} MB more",
            f"{before:.0f} and {after:.0f} MB",
            after <= GROWTH * before + GROWTH_MB,
        ),
        Promise("memory (PSS), the most", "", f"{max(each.pss_mb for each in rows):.0f} MB"),
        Promise(
            "p99 of a second, the second fifth and the last",
            "",
            f"{number(slow)} and {number(slower)} ms",
        ),
    ]


def _list(counts: Counter[str] | Counter[int]) -> str:
    return "; ".join(f"{what}: {count}" for what, count in counts.most_common(5)) or "none"


def write(rows: Sequence[Second], to: Path) -> None:
    """The CSV and the plot."""
    to.mkdir(parents=True, exist_ok=True)
    with (to / "soak.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Second)])
        table.writeheader()
        table.writerows(map(asdict, rows))
    plot(rows, to / "soak.png")


def plot(rows: Sequence[Second], to: Path) -> None:
    """Memory above, latency below, a line where something was done."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    seconds = [each.second for each in rows]
    figure, (memory, latency) = plt.subplots(
        2, 1, sharex=True, figsize=(10, 6), layout="constrained"
    )
    memory.plot(seconds, [each.pss_mb for each in rows])
    memory.set_ylabel("PSS of all processes, MB")
    memory.set_ylim(bottom=0)
    latency.plot(seconds, [each.p50_ms for each in rows], label="p50")
    latency.plot(seconds, [each.p99_ms for each in rows], label="p99")
    latency.set_yscale("log")
    latency.set_ylabel("ms")
    latency.set_xlabel("seconds")
    latency.legend()
    for each in rows:
        if each.event:
            for axis in (memory, latency):
                axis.axvline(each.second, color="grey", linewidth=0.5, linestyle=":")
            memory.text(each.second, 0, each.event, rotation=90, fontsize="x-small", va="bottom")
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write and tell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.robustness.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--every", type=float, default=20, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs/soak", help="of CSV and plot (runs/soak)"
    )
    add_page(parser)
    options = parser.parse_args(arguments)
    require(packages=["matplotlib"])
    others = [newest(name) for name in bodies.NAMES if name != NAME]
    with (
        only([MODELS / NAME / OLD, *others]) as folder,
        convserve(folder, workers=WORKERS) as server,
    ):
        rows, outcomes, kills, failed = soak(server, folder, options)
        if server.process.poll() is not None:
            failed.append("the service has ended")
    write(rows, options.out)
    print(*failed, sep="\n", file=sys.stderr)
    return told(
        judged(rows, outcomes, kills, failed),
        page=options.page,
        name="soak",
        above=f"{options.seconds:g} seconds, {len(outcomes):,} requests, {len(kills)} workers"
        f" killed, {sum(e.event in ('published', 'removed') for e in rows)} publications and"
        " removals:",
    )


if __name__ == "__main__":
    sys.exit(main())
