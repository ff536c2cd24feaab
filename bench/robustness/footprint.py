"""What the service needs, and what it connects to: memory, start, idle processor time, sockets.

Outbound connections are looked for twice: among the open sockets several times a second, and, if
strace may attach, in the system calls of a service that runs under it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.clients import bodies
from bench.clients.traffic import clients, mixture, stopped
from bench.reporting.figures import median
from bench.reporting.promises import Promise, benchmark, fact, nothing
from bench.rig.service import WORKERS, Server, convserve, newest, only
from bench.rig.sockets import Connection, outbound

MOST_MB, READY_SECONDS, IDLE_SHARE = 250, 2.0, 0.01
SETTLE = 3.0  # seconds from the start until the service idles
PERIOD = 0.05
CLIENTS, PAUSE = 4, 0.005
STARTS = 3

# A call that opens or uses a connection to another machine, or asks a name server.
CALL = re.compile(r"(?:connect|sendto|sendmsg)\(.*sa_family=(AF_INET6?).*?\)")


def idle(server: Server, seconds: float) -> float:
    """Return the processor time of all processes without requests, as a share of one core."""
    before = sum(server.cpu().values())
    time.sleep(seconds)
    return (sum(server.cpu().values()) - before) / seconds


def connections(server: Server, seconds: float) -> set[Connection]:
    """Return the outbound connections seen during ``seconds`` of mixed traffic."""
    running, found = clients(server, mixture(), CLIENTS, pause=PAUSE), set[Connection]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found |= outbound(server.processes(), server.port)
        time.sleep(PERIOD)
    stopped(running)
    return found


def traced(models: Path, seconds: float) -> list[str] | None:
    """Return the outbound system calls of a whole run; None if strace cannot attach."""
    if shutil.which("strace") is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "calls")
        under = ["strace", "-D", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(file)]
        if subprocess.run([*under, "true"], capture_output=True, check=False).returncode:
            return None
        with convserve(models, under, workers=WORKERS) as server:
            connections(server, seconds)
        time.sleep(SETTLE)  # strace, which -D made a child of the service, writes the rest
        return outbound_calls(file.read_text(errors="replace"))


def outbound_calls(calls: str) -> list[str]:
    """Return the lines of strace with an address of the internet protocol."""
    return [line for line in calls.splitlines() if CALL.search(line)]


def measure(models: Path, seconds: float) -> list[Promise]:
    """Measure everything; return the rows of the table."""
    starts = []
    for _ in range(STARTS - 1):
        with convserve(models, workers=WORKERS) as server:
            starts.append(server.ready_after)
    with convserve(models, workers=WORKERS) as server:
        starts.append(server.ready_after)
        time.sleep(SETTLE)
        fresh, share = server.pss(), idle(server, seconds)
        opened = connections(server, seconds)
        used = server.pss()
    calls, ready, below = traced(models, seconds), median(starts), share < IDLE_SHARE
    soon, limit = ready <= READY_SECONDS, f"≤ {READY_SECONDS:g} s"
    return [
        _memory("after the start", fresh),
        _memory("after mixed traffic", used),
        Promise(f"from the start to ready, median of {STARTS}", limit, f"{ready:.2f} s", soon),
        Promise("idle processor time, of one core", f"< {IDLE_SHARE:.0%}", f"{share:.2%}", below),
        nothing("outbound connections under traffic", _list(opened)),
        nothing("outbound system calls, under strace", _list(calls))
        if calls is not None
        else fact("outbound system calls, under strace", "strace may not attach here"),
    ]


@benchmark(seconds=(60.0, "length of idling, and of traffic"))
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Measure all models; return the conditions and the rows of the table."""
    with only([newest(name) for name in bodies.NAMES]) as models:
        promises = measure(models, options.seconds)
    above = (
        f"{WORKERS} workers and their master, {', '.join(f'`{n}`' for n in bodies.NAMES)},"
        f" {options.seconds:g} seconds each of idling and of traffic, {os.cpu_count()} cores:"
    )
    return above, promises


def _memory(when: str, megabytes: float) -> Promise:
    kept = 0 < megabytes <= MOST_MB
    return Promise(f"memory (PSS) {when}", f"≤ {MOST_MB} MB", f"{megabytes:.0f} MB", kept)


def _list(found: set[Connection] | list[str]) -> str:
    return "; ".join(map(str, sorted(found)[:5]))


if __name__ == "__main__":
    sys.exit(main())
