"""More requests than can be answered, and slow clients: does the service stay responsive?

First a storm of four times the measured capacity. The load generator runs on the same cores: how
much of the capacity it leaves is measured too, while nginx refuses the excess. Then each kind of
bad client beside normal traffic, in turn with normal traffic alone.
"""

import argparse
import math
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from bench.clients import bodies
from bench.clients.bad_clients import BadClients
from bench.clients.probes import Probe, probes
from bench.clients.traffic import stopped
from bench.clients.wrk import Open, closed, opened
from bench.reporting.figures import median, number, quotients, ratios
from bench.reporting.promises import Promise, benchmark, fact, none_of
from bench.rig.nginx import refusing
from bench.rig.service import Server, shipped

TIMES = 4
CONNECTIONS = 1024  # so that one is free whenever a request is due
CAPACITY_CLIENTS = 32
NORMAL_CLIENTS = 8
WINDOW = 5.0  # seconds of a closed loop
ROUNDS = 3
SERIES = 10  # fast answers in a row after which the service counts as recovered
GOODPUT, REFUSAL_MS, PROBE_MS, RECOVERY_SECONDS = 0.9, 50, 100, 2.0
PROBES = f"< {PROBE_MS} ms, all 200"

# As many as a hostile network may hold open, and more than the 256 places for requests of each
# worker; as many large bodies as fill a fast line.
BAD = {
    "silent": 600,
    "slow header": 600,
    "dripping body": 600,
    "half a request": 50,
    "aborted": 50,
    "50 MB": 2,
}
SPEED_KEPT = 0.8  # of the normal traffic, beside bad clients


class Target:
    """One model of a running service, and the requests for it."""

    def __init__(self, server: Server, name: str, window: float) -> None:
        self.server, self.window, self.path = server, window, f"/predict/{name}"
        self.bodies = bodies.single(bodies.files(name))

    def speed(self, clients: int) -> float:
        """Return the requests per second of a closed loop; NaN if a request failed."""
        url = self.server.url(self.path)
        return closed(url, self.bodies, clients=clients, seconds=self.window).speed

    def capacity(self) -> float:
        """Return the median speed of some closed loops."""
        return median([self.speed(CAPACITY_CLIENTS) for _ in range(ROUNDS)])

    def storm(self, server: Server, path: str, rate: float, seconds: float) -> Open:
        """Send the requests to a server at a constant rate."""
        url, many = server.url(path), CONNECTIONS
        return opened(url, self.bodies, rate=rate, seconds=seconds, clients=many, echoed=True)

    def once(self) -> float:
        """Return the seconds of one request on a new connection; infinite without a 200."""
        began, body, kind = time.monotonic(), self.bodies.files[0], self.bodies.content_type
        status = self.server.status("POST", self.path, body, kind)
        return time.monotonic() - began if status == 200 else math.inf


def recovery(target: Target, usual: float, patience: float = 60.0) -> float:
    """Return the seconds from now until a series of requests begins that are as fast as usual."""
    began, since, fast = time.monotonic(), 0.0, 0
    while fast < SERIES:
        asking = time.monotonic()
        if asking - began > patience:
            return math.inf
        if target.once() <= 2 * usual:
            since = since if fast else asking - began
            fast += 1
        else:
            fast = 0
    return since


def ceiling(target: Target, capacity: float) -> float:
    """Return the capacity while nginx refuses the excess of a storm.

    This is what load generator and kernel leave of the processors, whichever server refuses.
    """
    with refusing() as nginx, ThreadPoolExecutor(1) as aside:
        rate, seconds = (TIMES - 1) * capacity, (ROUNDS + 2) * target.window
        storming = aside.submit(target.storm, nginx, "/", rate, seconds)
        target.speed(CAPACITY_CLIENTS)  # until the storm has begun
        found = target.capacity()
        if storming.result().latencies.keys() != {503}:
            raise RuntimeError("nginx did not refuse all requests.")
    return found


def storm(target: Target, seconds: float) -> list[Promise]:
    """Send four times the capacity; return the rows of the table."""
    usual = median([target.once() for _ in range(5 * SERIES)])
    capacity = target.capacity()
    if not capacity > 0:
        raise RuntimeError("The capacity cannot be measured: requests failed, or had no answer.")
    before = ceiling(target, capacity)
    watching = probes(target.server)
    seen = target.storm(target.server, target.path, TIMES * capacity, seconds)
    stopped(watching)
    back = recovery(target, usual)
    highest = (before + ceiling(target, capacity)) / 2  # the machine varies
    after = target.capacity() / capacity
    soon, limit = back <= RECOVERY_SECONDS, f"≤ {RECOVERY_SECONDS:g} s"
    return [
        *judge_storm(seen, capacity, highest),
        *map(judge_probe, watching),
        Promise("until answers are as fast as before", limit, f"{back:.2f} s", soon),
        Promise("capacity after the storm ÷ before", "as before", f"{after:.2f}"),
    ]


def judge_storm(seen: Open, capacity: float, highest: float) -> list[Promise]:
    """Return the rows of the load itself."""
    goodput, of_highest = seen.rate() / capacity, seen.rate() / highest
    sent = sum(map(len, seen.latencies.values())) + seen.lost
    refused = seen.at(0.5, 503)
    # Without refusals, the excess waited in connections instead.
    refuses = bool(seen.latencies.get(503)) and refused <= REFUSAL_MS
    other = {status: len(n) for status, n in seen.latencies.items() if status not in {200, 503}}
    least, fine = f"≥ {GOODPUT:.0%}", not other.keys() - {408, 504}
    return [
        Promise("requests a second", f"{TIMES} × {number(capacity)}", number(sent / seen.seconds)),
        Promise("answered 200, of the capacity", least, f"{goodput:.0%}", goodput >= GOODPUT),
        fact("the capacity while nginx refuses as much", f"{highest / capacity:.0%}"),
        Promise("answered 200, of that", least, f"{of_highest:.0%}", of_highest >= GOODPUT),
        Promise("refused with 503, median", f"≤ {REFUSAL_MS} ms", f"{number(refused)} ms", refuses),
        fact("refused with 503, p99", f"{number(seen.at(0.99, 503))} ms"),
        fact("answered 200, p99", f"{number(seen.at(0.99))} ms"),
        Promise("other answers", "none but 408, 504", f"{other or 'none'}", fine),
        none_of("connections that broke", seen.lost),
    ]


def judge_probe(probe: Probe) -> Promise:
    """Return the row of a path that was probed in the storm."""
    latencies = " · ".join(number(probe.at(share)) for share in (0.5, 0.99, 1))
    what, fast = f"`{probe.path}` in the storm, median · p99 · slowest", probe.at(1) < PROBE_MS
    measured = f"{latencies} ms, {probe.failed} failed"
    return Promise(what, PROBES, measured, fast and not probe.failed)


def beside(target: Target, kind: str, count: int) -> list[Promise]:
    """Run normal traffic alone and beside bad clients, in turn; return the rows of the table."""
    alone, crowded, ended, watched = [], [], list[float](), list[Probe]()
    for _ in range(ROUNDS):
        alone.append(target.speed(NORMAL_CLIENTS))
        bad = BadClients(target.server.port, {kind: count})
        bad.start()
        time.sleep(1)
        watching = probes(target.server)
        crowded.append(target.speed(NORMAL_CLIENTS))
        stopped(watching)
        bad.stop()
        ended += bad.ended
        watched += watching
    slowest = max(probe.at(1) for probe in watched)
    failed = sum(probe.failed for probe in watched)
    # Two large bodies at a time are unwanted work, but work.
    floor, who = 0.0 if kind == "50 MB" else SPEED_KEPT, f"{count} × {kind}"
    lasted = f"{len(ended)}, median {number(median(ended))} s" if ended else "none"
    return [
        Promise(
            f"{who}: normal traffic beside ÷ alone",
            f"≥ {floor}" if floor else "",
            ratios(crowded, alone),
            median(quotients(crowded, alone)) >= floor,
        ),
        Promise(
            f"{who}: slowest of all probes",
            PROBES,
            f"{number(slowest)} ms, {failed} failed",
            not failed and slowest < PROBE_MS,
        ),
        fact(f"{who}: connections that ended meanwhile, and after what time", lasted),
    ]


@benchmark(
    programs=["wrk", "nginx"],
    seconds=(60.0, "length of the storm"),
    window=(WINDOW, "seconds of a closed loop"),
    bad=(list(BAD), "kinds of bad clients"),
    model=("cats_vs_dogs", "model of the storm", *bodies.NAMES),
)
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Run both parts; return the conditions and the rows of the table."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # 1,024 is a usual soft limit
    with shipped(bodies.NAMES) as server:
        target = Target(server, options.model, options.window)
        target.speed(CAPACITY_CLIENTS)  # warm up
        promises = storm(target, options.seconds)
        normal = Target(server, "digits", options.window)
        for kind in options.bad:
            promises += beside(normal, kind, BAD[kind])
    above = (
        f"`{options.model}`, {CONNECTIONS:,} connections, {options.seconds:g} seconds; bad"
        f" clients beside {NORMAL_CLIENTS} of `digits`:"
    )
    return above, promises


if __name__ == "__main__":
    sys.exit(main())
