"""Replicas of one service, with the same keys and one database of labels.

Knows the settings that replicas share; knows nothing of their requests.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.rig.service import WORKERS, Server, convserve, free_port

NAMES = ("a", "b")
KEY = "the key of a benchmark and no secret"


def addresses() -> dict[str, int]:
    """Return a free port for each replica."""
    return {name: free_port() for name in NAMES}


@contextmanager
def replicas(models: Path, database: str, ports: Mapping[str, int]) -> Iterator[dict[str, Server]]:
    """Start one ready replica for each name and port; the same ports serve after a restart."""
    starts = [
        convserve(
            models,
            workers=WORKERS,
            bind=f"127.0.0.1:{port}",
            replica=name,
            feedback_keys=KEY,
            feedback_url=database,
        )
        for name, port in ports.items()
    ]
    with ExitStack() as running:
        with ThreadPoolExecutor() as threads:  # at the same time
            servers = list(threads.map(running.enter_context, starts))
        yield dict(zip(ports, servers, strict=True))
