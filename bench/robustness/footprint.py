"""What the service takes, and whom it calls: memory, time to start, idle processor time, sockets.

All models, two workers. Outbound connections are looked for twice: in /proc several times a second,
and, where strace is there and may attach, in the system calls of a service started under it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.clients import bodies
from bench.clients.traffic import clients, mixture, stopped
from bench.reporting.figures import median
from bench.reporting.promises import Promise, add_page, told
from bench.rig.environment import require
from bench.rig.service import WORKERS, Server, convserve, newest, only
from bench.rig.sockets import outbound

MOST_MB, READY_SECONDS, IDLE_SHARE = 250, 2.0, 0.01
SETTLE = 3.0  # seconds after the start until it idles
PERIOD = 0.05
CLIENTS = 4
STARTS = 3

# A call that opens or uses a connection to another machine, or asks a name server.
CALL = re.compile(r"(?:connect|sendto|sendmsg)\(.*sa_family=(AF_INET6?).*?\)")


def idle(server: Server, seconds: float) -> float:
    """Processor time of all processes, as a share of one core, while nobody asks anything."""
    before = sum(server.cpu().values())
    time.sleep(seconds)
    return (sum(server.cpu().values()) - before) / seconds


def used(server: Server, seconds: float) -> set[tuple[str, str, int]]:
    """The outbound connections seen during so many seconds of mixed traffic."""
    running = clients(server, mixture(), CLIENTS, pause=0.005)
    found: set[tuple[str, str, int]] = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found |= outbound(server.processes(), server.port)
        time.sleep(PERIOD)
    stopped(running)
    return found


def traced(models: Path, seconds: float) -> list[str] | None:
    """The system calls that reach out, from the start to the end; None where strace cannot."""
    if shutil.which("strace") is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "calls")
        under = ["strace", "-D", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(file)]
        if subprocess.run([*under, "true"], capture_output=True, check=False).returncode:
            return None
        with convserve(models, under, workers=WORKERS) as server:
            running = clients(server, mixture(), CLIENTS, pause=0.005)
            time.sleep(seconds)
            stopped(running)
        time.sleep(SETTLE)  # strace, which -D made a child of the service, writes the rest
        return reaching(file.read_text(errors="replace"))


def reaching(calls: str) -> list[str]:
    """Of strace's lines, those that go to an address of the internet protocol."""
    return [line for line in calls.splitlines() if CALL.search(line)]


def measured(models: Path, seconds: float) -> list[Promise]:
    """Each promise, and what came of it."""
    starts = []
    for _ in range(STARTS - 1):
        with convserve(models, workers=WORKERS) as server:
            starts.append(server.ready_after)
    with convserve(models, workers=WORKERS) as server:
        starts.append(server.ready_after)
        time.sleep(SETTLE)
        fresh, share = server.pss(), idle(server, seconds)
        called = used(server, seconds)
        worn = server.pss()
    calls = traced(models, seconds)
    return [
        _memory("after the start", fresh),
        _memory("after mixed traffic", worn),
        Promise(
            f"from the start to ready, median of {STARTS}",
            f"≤ {READY_SECONDS:g} s",
            f"{median(starts):.2f} s",
            median(starts) <= READY_SECONDS,
        ),
        Promise(
            "idle processor time, of one core",
            f"< {IDLE_SHARE:.0%}",
            f"{share:.2%}",
            share < IDLE_SHARE,
        ),
        Promise("outbound connections under traffic, in /proc", "none", _list(called), not called),
        Promise(
            "calls that reach out, under strace",
            "none",
            "strace may not attach here" if calls is None else _list(calls),
            not calls,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and tell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.robustness.footprint", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=60, help="of idling, and of traffic")
    add_page(parser)
    options = parser.parse_args(arguments)
    require()
    with only([newest(name) for name in bodies.NAMES]) as models:
        promises = measured(models, options.seconds)
    return told(
        promises,
        page=options.page,
        name="footprint",
        above=f"{WORKERS} workers and their master, {', '.join(f'`{n}`' for n in bodies.NAMES)},"
        f" {options.seconds:g} seconds each of idling and of traffic, {os.cpu_count()} cores:",
    )


def _memory(when: str, megabytes: float) -> Promise:
    kept = 0 < megabytes <= MOST_MB
    return Promise(f"memory (PSS) {when}", f"≤ {MOST_MB} MB", f"{megabytes:.0f} MB", kept)


def _list(found: set[tuple[str, str, int]] | list[str]) -> str:
    return "; ".join(map(str, sorted(found)[:5])) or "none"


if __name__ == "__main__":
    sys.exit(main())
