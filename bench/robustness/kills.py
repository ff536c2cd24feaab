"""Kill a worker now and then under load: which requests fail, and do the counters stay correct?

Only requests on connections of the killed worker may fail. The connections of each worker are
listed just before the kill.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families

from bench.clients import bodies
from bench.clients.traffic import Outcome, blameless, clients, right, stopped
from bench.reporting.promises import Promise, benchmark, none_of
from bench.rig.kill import Kill, kill, wait_for_workers
from bench.rig.service import shipped

FAILED = "requests that failed on connections of"


def sum_of(page: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's series with these labels."""
    samples = (each for one in text_string_to_metric_families(page) for each in one.samples)
    found = (e for e in samples if e.name == name and labels.items() <= e.labels.items())
    return sum(each.value for each in found)


def judge(outcomes: Sequence[Outcome], kills: Sequence[Kill], metrics: str) -> list[Promise]:
    """Return the rows of the table."""
    broken = [each for each in outcomes if each.broke]
    unexplained = sum(not blameless(each, kills) for each in broken)
    answered = sum(each.status == 200 for each in outcomes)
    counted = sum_of(metrics, "convserve_requests_total", status="200", route="/predict/<name>")
    flying = sum_of(metrics, "convserve_requests_in_flight")
    return [
        none_of(f"{FAILED} another worker", unexplained),
        Promise(f"{FAILED} the killed worker", "those in it", f"{len(broken) - unexplained}"),
        none_of("other answers than 200", sum(not (e.broke or e.kept) for e in outcomes)),
        Promise(
            "answers counted in /metrics, and received",
            "equal, but for broken ones",
            f"{counted:,.0f}, {answered:,}",
            abs(counted - answered) <= len(broken),
        ),
        Promise(
            "requests in flight afterwards, that for /metrics included",
            "at most 1",
            f"{flying:.0f}",
            flying <= 1,
        ),
    ]


@benchmark(
    seconds=(60.0, "length of the run"),
    every=(5.0, "seconds between two kills"),
    clients=(32, "number of clients"),
    seed=(1, "seed for the choice of workers"),
)
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Kill workers under load; return the conditions and the rows of the table."""
    rng, kills = random.Random(options.seed), list[Kill]()
    with shipped(bodies.NAMES) as server:
        running = clients(server, right("digits")[:10], options.clients)
        end = time.monotonic() + options.seconds
        while time.monotonic() < end - options.every / 2:
            time.sleep(options.every)
            if done := kill(server, rng):
                kills.append(done)
        outcomes = stopped(running)
        wait_for_workers(server)
        metrics = server.answer("GET", "/metrics")[1].decode()
    above = (
        f"{options.clients} clients for {options.seconds:g} seconds, {len(kills)} kills,"
        f" {len(outcomes):,} requests:"
    )
    promises = judge(outcomes, kills, metrics)
    return above, promises


if __name__ == "__main__":
    sys.exit(main())
