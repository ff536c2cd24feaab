"""Load by wrk: a closed loop, where each client waits for its answer, or a constant rate.

Knows wrk and its script ``wrk.lua``; knows nothing of servers or of tables.
"""

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.reporting.figures import percentile

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT = 30  # seconds after which wrk counts a request as an error
SPARE = 60  # seconds that wrk may need beside its window


@dataclass(frozen=True)
class Bodies:
    """The bodies that are posted in turn."""

    files: Sequence[bytes]
    content_type: str
    images: int = 1  # in each


@dataclass(frozen=True)
class Closed:
    """The figures of a closed loop.

    wrk spreads a stall over the requests that the stall delayed: its percentiles are no lower than
    those of its clients.
    """

    per_second: float  # requests
    p50: float  # milliseconds
    p99: float
    errors: int = 0  # answers with a status above 399, and connections that failed

    @property
    def speed(self) -> float:
        """Requests per second; NaN if a request failed, or nothing was answered."""
        return math.nan if self.errors else self.per_second or math.nan


@dataclass(frozen=True)
class Open:
    """The latencies of an open loop by status: milliseconds from the time a request was due."""

    seconds: float
    latencies: Mapping[int, list[float]] = field(default_factory=dict)
    lost: int = 0  # requests on connections that were closed or failed

    def rate(self, status: int = 200) -> float:
        """Return the answers of a status per second."""
        return len(self.latencies.get(status, [])) / self.seconds

    def at(self, share: float, status: int = 200) -> float:
        """Return a percentile of the latency of a status."""
        return percentile(self.latencies.get(status, []), share)

    @property
    def errors(self) -> int:
        """The number of requests that were not answered 200."""
        return self.lost + sum(len(v) for status, v in self.latencies.items() if status != 200)


def closed(url: str, bodies: Bodies, *, clients: int, seconds: float) -> Closed:
    """Run clients with one connection each, kept alive if the server allows it."""
    return read_closed(_wrk(url, bodies, threads=1, clients=clients, seconds=seconds))


def opened(
    url: str, bodies: Bodies, *, rate: float, seconds: float, clients: int, echoed: bool = False
) -> Open:
    """Send requests at a constant ``rate`` over ``clients`` connections.

    If the server echoes X-Request-ID, all connections share one schedule, and only a request for
    which no connection is free is sent late. Otherwise each connection has its own schedule.
    """
    threads = 1 if echoed else clients
    variables = {
        "BENCH_INTERVAL_US": str(1e6 * threads / rate),
        "BENCH_THREADS": str(threads),
        "BENCH_ECHOED": str(int(echoed)),
    }
    seen = _wrk(url, bodies, threads=threads, clients=clients, seconds=seconds, **variables)
    return read_open(seen)


def _wrk(
    url: str, bodies: Bodies, *, threads: int, clients: int, seconds: float, **variables: str
) -> str:
    command = ["wrk", f"-t{threads}", f"-c{clients}", f"-d{max(1, round(seconds))}s"]
    command += ["--timeout", f"{TIMEOUT}s", "-s", str(SCRIPT)]
    command += ["-H", f"Content-Type: {bodies.content_type}", url]
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch, str(number)) for number in range(len(bodies.files))]
        for path, data in zip(paths, bodies.files, strict=True):
            path.write_bytes(data)
        done = subprocess.run(
            command,
            env={**os.environ, "BENCH_BODIES": "\n".join(map(str, paths)), **variables},
            capture_output=True,
            text=True,
            timeout=seconds + TIMEOUT + SPARE,
            check=False,
        )
    if done.returncode or "{" not in done.stdout:
        raise RuntimeError(f"wrk exited with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def read_closed(output: str) -> Closed:
    """Parse the output of wrk after a closed loop."""
    found = json.loads(output[output.rindex("{") :])
    speed, errors = found["requests"] / found["seconds"], found["refused"] + found["broken"]
    return Closed(speed, found["p50_us"] / 1000, found["p99_us"] / 1000, errors)


def read_open(output: str) -> Open:
    """Parse the output of wrk after an open loop."""
    found = json.loads(output[output.rindex("{") :])
    latencies: dict[int, list[float]] = {}
    lost = int(found["broken"])
    for line in output.splitlines():
        kind, *values = line.split() or [""]
        if kind == "answer":
            latencies.setdefault(int(values[0]), []).append(int(values[1]) / 1000)
        elif kind == "lost":
            lost += int(values[0])
    return Open(found["seconds"], latencies, lost)
