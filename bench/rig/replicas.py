"""Replicas of one service: several, with the same keys and one database of labels.

Knows the settings that they share; knows nothing of what is asked of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.rig.service import WORKERS, Server, convserve, free_port

NAMES = ("a", "b")
KEY = "the key of a benchmark and no secret"


def addresses() -> dict[str, int]:
    """A free port for each."""
    return {name: free_port() for name in NAMES}


@contextmanager
def replicas(models: Path, database: str, ports: Mapping[str, int]) -> Iterator[dict[str, Server]]:
    """All ready; of the same name and port when they are started again."""
    with ExitStack() as running:
        yield {
            name: running.enter_context(
                convserve(
                    models,
                    workers=WORKERS,
                    bind=f"127.0.0.1:{port}",
                    replica=name,
                    feedback_keys=KEY,
                    feedback_url=database,
                )
            )
            for name, port in ports.items()
        }
