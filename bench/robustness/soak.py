"""Ten minutes of mixed traffic with faults: does memory stay constant, are promises kept?

All kinds of correct, incorrect and bad requests; workers killed, a version published and removed.
Memory and latency over time are written to a CSV and a plot.
"""

import argparse
import csv
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bench.clients import bodies, traffic
from bench.clients.bad_clients import BadClients
from bench.clients.traffic import EXCUSED, REFUSALS, Outcome, blameless
from bench.reporting.figures import median, number, percentile
from bench.reporting.pictures import picture
from bench.reporting.promises import Promise, benchmark, fact, none_of, nothing
from bench.rig.kill import Kill, kill, wait_for_workers
from bench.rig.service import ROOT, WORKERS, Server, convserve, newest, only, until
from bench.robustness.publication import Publication, converged

NAME = "digits"  # the model whose versions change
CLIENTS, PAUSE = 6, 0.005
BAD = {
    "silent": 20,
    "slow header": 10,
    "dripping body": 10,
    "half a request": 5,
    "aborted": 5,
    "50 MB": 1,
}
FIFTHS = "the second fifth and the last"
PATIENCE = 30.0  # seconds for all workers to serve what is published
GROWTH, GROWTH_MB = 1.2, 10  # memory at the end, of that after the first fifth


@dataclass(frozen=True)
class Second:
    """One line of the CSV."""

    second: float
    pss_mb: float
    workers: int
    requests: int
    p50_ms: float
    p99_ms: float
    refused: int  # as any traffic may be
    broken: int  # connections that broke during a request
    event: str


class Soak:
    """A run: the service, what was done to it, and what was seen every second."""

    def __init__(self, server: Server, publication: Publication, seed: int) -> None:
        self.kills: list[Kill] = []
        self.failed: list[str] = []
        self.rows: list[Second] = []
        self._server, self._publication = server, publication
        self._rng, self._began = random.Random(seed), time.monotonic()

    def run(self, seconds: float, every: float) -> list[Outcome]:
        """Cause a fault every ``every`` seconds under traffic; return all outcomes."""
        faults = self._faults()
        bad = BadClients(self._server.port, BAD)
        bad.start()
        running = traffic.clients(self._server, traffic.mixture(), CLIENTS, pause=PAUSE)
        recent, due = traffic.recent(running), self._began + every
        while (now := time.monotonic()) < self._began + seconds:
            event = next(faults) if now >= due else ""
            due = time.monotonic() + every if event else due
            time.sleep(1)
            self.rows.append(self._second(next(recent), event))
        outcomes = traffic.stopped(running)
        bad.stop()
        if self._server.process.poll() is not None:
            self.failed.append("the service exited")
        return outcomes

    def _faults(self) -> Iterator[str]:
        """Cause one fault after another, and yield the name of each."""
        old = int(self._publication.source.name)
        while True:
            self._kill()
            yield "killed"
            self._publication.publish(old + 1)
            self._converge(old, old + 1)
            yield "published"
            self._kill()
            yield "killed"
            self._publication.remove(old + 1)
            self._converge(old)
            yield "removed"

    def _kill(self) -> None:
        if done := kill(self._server, self._rng):
            self.kills.append(done)
        wait_for_workers(self._server)

    def _converge(self, *versions: int) -> None:
        self._server.process.send_signal(signal.SIGHUP)
        expected = {"versions": list(versions)}
        try:
            until(lambda: converged(self._server, NAME, expected), PATIENCE, "", every=0.5)
        except TimeoutError:
            self.failed.append(f"not all workers serve {NAME} {versions} alone")

    def _second(self, new: Sequence[Outcome], event: str) -> Second:
        answered = [each.seconds * 1000 for each in new if not each.broke]
        return Second(
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


def judge(
    rows: Sequence[Second], outcomes: Sequence[Outcome], kills: Sequence[Kill], failed: list[str]
) -> list[Promise]:
    """Return the rows of the table."""
    broken = [each for each in outcomes if each.broke]
    unexplained = sum(not blameless(each, kills) for each in broken)
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
        nothing("answers that were not promised", _list(odd)),
        fact("refusals: 408, 503, 504", _list(refused) or "none"),
        none_of(f"connections that broke, {EXCUSED}", unexplained, f" of {len(broken)}"),
        none_of("publications and removals that did not arrive", len(failed)),
        Promise(
            f"memory (PSS), {FIFTHS}",
            f"≤ {GROWTH} × and {GROWTH_MB} MB more",
            f"{before:.0f} and {after:.0f} MB",
            after <= GROWTH * before + GROWTH_MB,
        ),
        fact("memory (PSS), the most", f"{max(each.pss_mb for each in rows):.0f} MB"),
        fact(f"p99 of a second, {FIFTHS}", f"{number(slow)} and {number(slower)} ms"),
    ]


def _list(counts: Counter[str] | Counter[int]) -> str:
    return "; ".join(f"{what}: {count}" for what, count in counts.most_common(5))


def write(rows: Sequence[Second], to: Path) -> None:
    """Write the CSV, and the plot of memory above latency, with a line at each fault."""
    to.mkdir(parents=True, exist_ok=True)
    with (to / "soak.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Second)])
        table.writeheader()
        table.writerows(map(asdict, rows))
    seconds = [each.second for each in rows]
    with picture(to / "soak.png", 2, 1, sharex=True, figsize=(10, 6)) as (_, (memory, latency)):
        memory.plot(seconds, [each.pss_mb for each in rows])
        memory.set_ylabel("PSS of all processes, MB")
        memory.set_ylim(bottom=0)
        latency.plot(seconds, [each.p50_ms for each in rows], label="p50")
        latency.plot(seconds, [each.p99_ms for each in rows], label="p99")
        latency.set_yscale("log")
        latency.set_ylabel("ms")
        latency.set_xlabel("seconds")
        latency.legend()
        for each in filter(lambda row: row.event, rows):
            for axis in (memory, latency):
                axis.axvline(each.second, color="grey", linewidth=0.5, linestyle=":")
            memory.text(each.second, 0, each.event, rotation=90, fontsize="x-small", va="bottom")


@benchmark(
    packages=["matplotlib"],
    seconds=(600.0, "length of the run"),
    every=(20.0, "seconds between two faults"),
    seed=(1, "seed for the choice of workers"),
    out=(ROOT / "runs/soak", "folder of CSV and plot"),
)
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Run, and write CSV and plot; return the conditions and the rows of the table."""
    with (
        only([newest(name) for name in bodies.NAMES]) as folder,
        convserve(folder, workers=WORKERS) as server,
    ):
        soak = Soak(server, Publication(folder, NAME, newest(NAME)), options.seed)
        outcomes = soak.run(options.seconds, options.every)
    write(soak.rows, options.out)
    print(*soak.failed, sep="\n", file=sys.stderr)
    changes = sum(each.event in ("published", "removed") for each in soak.rows)
    above = (
        f"{options.seconds:g} seconds, {len(outcomes):,} requests, {len(soak.kills)} workers"
        f" killed, {changes} publications and removals:"
    )
    promises = judge(soak.rows, outcomes, soak.kills, soak.failed)
    return above, promises


if __name__ == "__main__":
    sys.exit(main())
