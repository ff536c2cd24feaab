"""A worker is killed now and then under load: which requests fail, and does the count stay right?

Only requests on connections of the worker that was killed may fail. Which connections those were is
read from /proc in the moment before the kill.
"""

import argparse
import os
import random
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.clients import bodies
from bench.clients.traffic import Outcome, clients, right, stopped
from bench.reporting.promises import Promise, add_page, told
from bench.rig.environment import require
from bench.rig.service import WORKERS, Server, convserve, newest, only
from bench.rig.sockets import owners

YOUNG = 0.5  # seconds before a kill in which a connection is too young to be known


@dataclass(frozen=True)
class Kill:
    """A worker was killed, and whose the connections were before: client port to process id."""

    at: float  # a ``time.monotonic()``
    pid: int
    owners: dict[int, int]


def kill(server: Server, rng: random.Random) -> Kill | None:
    """Kill one of the workers; none, where not all are there."""
    workers = server.workers()
    if len(workers) < WORKERS:
        return None
    victim, before = rng.choice(workers), owners(workers, server.port)
    at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    return Kill(at, victim, before)


def blameless(outcome: Outcome, kills: Sequence[Kill]) -> bool:
    """Whether a request that broke was on a connection of a worker that was killed then."""
    for each in kills:
        during = outcome.began - YOUNG <= each.at <= outcome.began + outcome.seconds + YOUNG
        # A connection that the snapshot does not hold came in the very moment of the kill.
        if during and each.owners.get(outcome.port, each.pid) == each.pid:
            return True
    return False


def counted(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's series with these labels."""
    total = 0.0
    for line in page.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
            total += float(found[2])
    return total


def judged(outcomes: Sequence[Outcome], kills: Sequence[Kill], metrics: str) -> list[Promise]:
    """The lines of the table."""
    broken = [each for each in outcomes if each.broke]
    strange = [each for each in broken if not blameless(each, kills)]
    odd = [each for each in outcomes if not each.broke and not each.kept]
    answered = sum(each.status == 200 for each in outcomes)
    there = counted(metrics, "convserve_requests_total", status="200", route="/predict/<name>")
    flying = counted(metrics, "convserve_requests_in_flight")
    return [
        Promise(
            "requests that failed on connections of another worker",
            "0",
            f"{len(strange)}",
            not strange,
        ),
        Promise(
            "requests that failed on connections of the killed worker",
            "those in it",
            f"{len(broken) - len(strange)}",
        ),
        Promise("other answers than 200", "0", f"{len(odd)}", not odd),
        Promise(
            "answers counted in /metrics, and received",
            "equal, but for those that broke",
            f"{there:,.0f}, {answered:,}",
            abs(there - answered) <= len(broken),
        ),
        Promise(
            "requests in flight afterwards, the one that asks included",
            "at most 1",
            f"{flying:.0f}",
            flying <= 1,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and tell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.robustness.kills", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=5, help="seconds between two kills")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    add_page(parser)
    options = parser.parse_args(arguments)
    require()
    rng, kills = random.Random(options.seed), list[Kill]()
    models = [newest(name) for name in bodies.NAMES]
    with only(models) as folder, convserve(folder, workers=WORKERS) as server:
        running = clients(server, right("digits")[:10], options.clients)
        end = time.monotonic() + options.seconds
        while time.monotonic() < end - options.every / 2:
            time.sleep(options.every)
            if done := kill(server, rng):
                kills.append(done)
        outcomes = stopped(running)
        wait_for_workers(server)
        metrics = server.answer("GET", "/metrics")[1].decode()
    return told(
        judged(outcomes, kills, metrics),
        page=options.page,
        name="kills",
        above=f"{options.clients} clients for {options.seconds:g} seconds, {len(kills)} kills,"
        f" {len(outcomes):,} requests:",
    )


def wait_for_workers(server: Server, seconds: float = 30) -> None:
    """Until all workers are there again and answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(server.workers()) == WORKERS and server.status("GET", "/readyz") == 200:
            return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
