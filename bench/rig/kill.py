"""Kill a worker of a running service, and record which process held which connection before."""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from bench.rig.service import WORKERS, Server, is_ready, until
from bench.rig.sockets import owners


@dataclass(frozen=True)
class Kill:
    """A killed worker, and the connections of all workers just before."""

    at: float  # a ``time.monotonic()``
    pid: int
    owners: dict[int, int]  # client's port to process id


def kill(server: Server, rng: random.Random) -> Kill | None:
    """Kill one of the workers with SIGKILL; return None while a worker is missing."""
    workers = server.workers()
    if len(workers) < WORKERS:
        return None
    victim, before = rng.choice(workers), owners(workers, server.port)
    at = time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
        return Kill(at, victim, before)
    return None


def wait_for_workers(server: Server, seconds: float = 30) -> None:
    """Wait until all workers are there again and the service is ready, or the time is up."""
    with suppress(TimeoutError):
        until(lambda: len(server.workers()) == WORKERS and is_ready(server), seconds, "")
