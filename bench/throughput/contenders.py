"""The servers that are compared: Convserve, what a user would write instead, and Convserve's own
Flask application under another server.

All have two workers and run the same file of the same model. Each peer is given in its best light:
no access log, keep-alive where it has it. Convserve runs as it ships, access log and metrics
included, unless it is told otherwise.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.clients import bodies
from bench.clients.wrk import Bodies
from bench.rig.service import (
    WORKERS,
    Server,
    convserve,
    convserve_environment,
    free_port,
    only,
    started,
)

OURS = "Convserve"


@dataclass(frozen=True)
class Subject:
    """What all of them serve in one comparison."""

    folder: Path  # of the version
    pictures: Sequence[bytes]
    file: str = "model.onnx"  # that the peers run
    settings: Mapping[str, str] | None = None  # of Convserve

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.folder.parent.name

    @property
    def model(self) -> Path:
        """The file that the peers run."""
        return self.folder / self.file


@dataclass(frozen=True)
class Contender:
    """How to start one, and how it takes a picture."""

    start: Callable[[Subject], AbstractContextManager[Server]]
    single: Callable[[Sequence[bytes]], Bodies] = bodies.single


@contextmanager
def _convserve(subject: Subject) -> Iterator[Server]:
    settings = {"workers": str(WORKERS), **(subject.settings or {})}
    with only([subject.folder]) as models, convserve(models, **settings) as server:
        yield server


def _peer(*command: str) -> Callable[[Subject], AbstractContextManager[Server]]:
    @contextmanager
    def start(subject: Subject) -> Iterator[Server]:
        port = free_port()
        probe = bodies.single(subject.pictures)
        form = bodies.forms(subject.pictures, 1)

        def ready(server: Server) -> bool:
            path = f"/predict/{subject.name}"
            answers = (
                server.status("POST", path, each.files[0], each.content_type)
                for each in (probe, form)
            )
            return 200 in answers

        with started(
            [sys.executable, "-m", *(part.format(port=port) for part in command)],
            port=port,
            ready=ready,
            environment={**os.environ, "MODEL": str(subject.model)},
        ) as server:
            yield server

    return start


@contextmanager
def _by_flask(subject: Subject) -> Iterator[Server]:
    port = free_port()
    with (
        only([subject.folder]) as models,
        started(
            [sys.executable, "-m", *(part.format(port=port) for part in GTHREAD)],
            port=port,
            ready=lambda server: server.status("GET", "/readyz") == 200,
            environment=convserve_environment(models, **(subject.settings or {})),
        ) as server,
    ):
        yield server


UVICORN = (
    *(
        "uvicorn",
        "bench.throughput.peers.fastapi_app:app",
        "--workers",
        str(WORKERS),
        "--port",
        "{port}",
    ),
    *("--no-access-log", "--log-level", "warning"),
)
GUNICORN = (
    *("gunicorn", "bench.throughput.peers.flask_app:app", "--workers", str(WORKERS)),
    *("--bind", "127.0.0.1:{port}", "--no-control-socket"),
)
GTHREAD = (
    *("gunicorn", "serving.app:create_app()", "--workers", str(WORKERS), "--threads", "32"),
    *("--bind", "127.0.0.1:{port}", "--no-control-socket"),
)

CONTENDERS = {
    OURS: Contender(_convserve),
    "FastAPI, uvicorn[standard]": Contender(_peer(*UVICORN)),
    # As `pip install uvicorn` gives it: neither uvloop nor httptools.
    "FastAPI, uvicorn": Contender(_peer(*UVICORN, "--loop", "asyncio", "--http", "h11")),
    "Flask, gunicorn": Contender(
        _peer(*GUNICORN), single=lambda pictures: bodies.forms(pictures, 1)
    ),
}

# What the hot path was decided by: the same routes, images and log lines, answered by Flask.
DECISION = {
    OURS: Contender(_convserve),
    "its Flask application, gunicorn's threads": Contender(_by_flask),
}
