"""More requests than can be answered, and clients that are slow: does the service stay itself?

First a storm: four times the measured capacity, at a constant rate over many connections. The load
generator runs on the same processors: how much of the capacity it leaves is measured, too, while
nginx refuses what is too much. Then each kind of bad client beside normal traffic, which takes
turns with normal traffic alone.
"""

import argparse
import math
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.clients import bodies
from bench.clients.bad_clients import BadClients
from bench.clients.probes import Probe, asked, probes
from bench.clients.wrk import Open, closed, opened
from bench.reporting.figures import median, number, ratios
from bench.reporting.promises import Promise, add_page, told
from bench.rig.environment import require
from bench.rig.nginx import refusing
from bench.rig.service import WORKERS, Server, convserve, newest, only

TIMES = 4
CONNECTIONS = 1024  # so that one is free whenever a request is due
CAPACITY_CLIENTS = 32
NORMAL_CLIENTS = 8
WINDOW = 5.0  # seconds of a closed loop
ROUNDS = 3
SERIES = 10  # answers as fast as before the storm: the service has recovered
GOODPUT, REFUSAL_MS, PROBE_MS, RECOVERY_SECONDS = 0.9, 50, 100, 2.0

# As many as a hostile network may hold open, and more than there are places for requests, 256 in
# each worker; of the large bodies as many as fill a fast line.
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
    """One model of a running service, and what is sent to it."""

    def __init__(self, server: Server, name: str, window: float) -> None:
        self.server, self.window = server, window
        self.url = f"http://127.0.0.1:{server.port}/predict/{name}"
        self.path, self.bodies = f"/predict/{name}", bodies.single(bodies.files(name))

    def speed(self, clients: int) -> float:
        """Requests a second in a closed loop, all of which must be answered 200."""
        seen = closed(self.url, self.bodies, clients=clients, seconds=self.window)
        return math.nan if seen.errors else seen.per_second

    def once(self) -> float:
        """Seconds of one request alone, on a new connection; infinite where it is not a 200."""
        began = time.monotonic()
        kind = self.bodies.content_type
        status = asked(self.server, self.path, self.bodies.files[0], kind, "POST")
        return time.monotonic() - began if status == 200 else math.inf


def recovered(target: Target, usual: float, patience: float = 60.0) -> float:
    """Seconds from now until the first of a series of requests that take no longer than usual."""
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


def left(target: Target, capacity: float) -> float:
    """The capacity while nginx refuses what a storm brings too much: what the load generator and
    the kernel leave, whoever refuses."""
    with refusing() as nginx, ThreadPoolExecutor(1) as aside:
        storming = aside.submit(
            opened,
            f"http://127.0.0.1:{nginx.port}/",
            target.bodies,
            rate=(TIMES - 1) * capacity,
            seconds=(ROUNDS + 2) * target.window,
            clients=CONNECTIONS,
            echoed=True,
        )
        target.speed(CAPACITY_CLIENTS)  # the storm begins
        found = median([target.speed(CAPACITY_CLIENTS) for _ in range(ROUNDS)])
        if storming.result().latencies.keys() != {503}:
            raise RuntimeError("nginx did not refuse all that came.")
    return found


def storm(target: Target, seconds: float) -> list[Promise]:
    """Four times the capacity."""
    usual = median([target.once() for _ in range(5 * SERIES)])
    capacity = median([target.speed(CAPACITY_CLIENTS) for _ in range(ROUNDS)])
    if not capacity > 0:
        raise RuntimeError(
            "The capacity cannot be measured: requests failed, or none was answered."
        )
    before = left(target, capacity)
    watching = probes(target.server)
    seen = opened(
        target.url,
        target.bodies,
        rate=TIMES * capacity,
        seconds=seconds,
        clients=CONNECTIONS,
        echoed=True,
    )
    for probe in watching:
        probe.stop()
    back = recovered(target, usual)
    ceiling = (before + left(target, capacity)) / 2  # the machine is not the same all the time
    after = median([target.speed(CAPACITY_CLIENTS) for _ in range(ROUNDS)])
    return [
        *_storm_promises(seen, capacity, ceiling),
        *(_probed(probe, "in the storm") for probe in watching),
        Promise(
            "until answers come as before",
            f"≤ {RECOVERY_SECONDS:g} s",
            f"{back:.2f} s",
            back <= RECOVERY_SECONDS,
        ),
        Promise("capacity after the storm ÷ before", "as before", f"{after / capacity:.2f}"),
    ]


def _storm_promises(seen: Open, capacity: float, ceiling: float) -> list[Promise]:
    goodput, of_ceiling = seen.rate() / capacity, seen.rate() / ceiling
    sent = sum(map(len, seen.latencies.values())) + seen.lost
    refused = seen.at(0.5, 503)
    # Where nothing was refused although too much came, connections waited instead.
    refuses = bool(seen.latencies.get(503)) and refused <= REFUSAL_MS
    other = {status: len(n) for status, n in seen.latencies.items() if status not in {200, 503}}
    return [
        Promise("requests a second", f"{TIMES} × {number(capacity)}", number(sent / seen.seconds)),
        Promise(
            "answered 200, of the capacity",
            f"≥ {GOODPUT:.0%}",
            f"{goodput:.0%}",
            goodput >= GOODPUT,
        ),
        Promise("the capacity while nginx refuses as much", "", f"{ceiling / capacity:.0%}"),
        Promise(
            "answered 200, of that", f"≥ {GOODPUT:.0%}", f"{of_ceiling:.0%}", of_ceiling >= GOODPUT
        ),
        Promise("refused with 503, median", f"≤ {REFUSAL_MS} ms", f"{number(refused)} ms", refuses),
        Promise("refused with 503, p99", "", f"{number(seen.at(0.99, 503))} ms"),
        Promise("answered 200, p99", "", f"{number(seen.at(0.99))} ms"),
        Promise(
            "other answers",
            "none but 408, 504",
            f"{other or 'none'}",
            not other.keys() - {408, 504},
        ),
        Promise("connections that broke", "0", f"{seen.lost}", not seen.lost),
    ]


def _probed(probe: Probe, when: str) -> Promise:
    slowest = probe.at(1)
    return Promise(
        f"`{probe.path}` {when}, median · p99 · slowest",
        f"< {PROBE_MS} ms, all 200",
        f"{number(probe.at(0.5))} · {number(probe.at(0.99))} · {number(slowest)} ms,"
        f" {probe.failed} failed",
        not probe.failed and slowest < PROBE_MS,
    )


def beside(target: Target, kind: str, count: int) -> list[Promise]:
    """Normal traffic alone and beside bad clients, in turn."""
    alone, crowded, ended, watched = [], [], list[float](), list[Probe]()
    for _ in range(ROUNDS):
        alone.append(target.speed(NORMAL_CLIENTS))
        bad = BadClients(target.server.port, {kind: count})
        bad.start()
        time.sleep(1)
        watching = probes(target.server)
        crowded.append(target.speed(NORMAL_CLIENTS))
        for probe in watching:
            probe.stop()
        bad.stop()
        ended += bad.ended
        watched += watching
    kept = [b / a for a, b in zip(alone, crowded, strict=True)]
    slowest = max(probe.at(1) for probe in watched)
    failed = sum(probe.failed for probe in watched)
    # Two large bodies at a time are work that is wanted by nobody, but work.
    floor = 0.0 if kind == "50 MB" else SPEED_KEPT
    return [
        Promise(
            f"{count} × {kind}: normal traffic beside ÷ alone",
            f"≥ {floor}" if floor else "",
            ratios(crowded, alone),
            median(kept) >= floor,
        ),
        Promise(
            f"{count} × {kind}: slowest of all probes",
            f"< {PROBE_MS} ms, all 200",
            f"{number(slowest)} ms, {failed} failed",
            not failed and slowest < PROBE_MS,
        ),
        Promise(
            f"{count} × {kind}: connections that ended meanwhile, and after what time",
            "",
            f"{len(ended)}, median {number(median(ended))} s" if ended else "none",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Both; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.robustness.overload", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=60, help="of the storm")
    parser.add_argument("--window", type=float, default=WINDOW, help="seconds of a closed loop")
    parser.add_argument("--model", default="cats_vs_dogs", choices=bodies.NAMES)
    parser.add_argument("--bad", nargs="*", default=list(BAD), choices=list(BAD))
    add_page(parser)
    options = parser.parse_args(arguments)
    require(programs=["wrk", "nginx"])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # 1,024 is a usual soft limit
    models = [newest(name) for name in bodies.NAMES]
    with only(models) as folder, convserve(folder, workers=WORKERS) as server:
        target = Target(server, options.model, options.window)
        target.speed(CAPACITY_CLIENTS)  # warms up
        promises = storm(target, options.seconds)
        normal = Target(server, "digits", options.window)
        for kind in options.bad:
            promises += beside(normal, kind, BAD[kind])
    return told(
        promises,
        page=options.page,
        name="overload",
        above=f"`{options.model}`, {CONNECTIONS:,} connections, {options.seconds:g} seconds; bad"
        f" clients beside {NORMAL_CLIENTS} of `digits`:",
    )


if __name__ == "__main__":
    sys.exit(main())
