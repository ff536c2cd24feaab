"""The compared servers: Convserve, what a user would write instead, and Convserve's own Flask
application under another server.

All have two workers and run the same file of the same model. Each peer runs without an access log,
with keep-alive where it has it. Convserve runs as it ships, access log and metrics included.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.clients import bodies
from bench.clients.wrk import Bodies
from bench.rig import service
from bench.rig.service import WORKERS, Server, only

OURS = "Convserve"


@dataclass(frozen=True)
class Subject:
    """What all contenders serve in one comparison."""

    folder: Path  # of the version
    pictures: Sequence[bytes]
    file: str = "model.onnx"  # that the peers run
    settings: Mapping[str, str] = field(default_factory=dict)  # of Convserve

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
    """How to start a server, and the form in which it accepts a picture."""

    start: Callable[[Subject], AbstractContextManager[Server]]
    single: Callable[[Sequence[bytes]], Bodies] = bodies.single


@contextmanager
def _convserve(subject: Subject) -> Iterator[Server]:
    settings = {"workers": str(WORKERS), **subject.settings}
    with only([subject.folder]) as models, service.convserve(models, **settings) as server:
        yield server


@contextmanager
def _flask_application(subject: Subject) -> Iterator[Server]:
    with only([subject.folder]) as models:
        environment = service.convserve_environment(models, **subject.settings)
        with _module(GTHREAD, service.is_ready, environment) as server:
            yield server


def _peer(*command: str) -> Callable[[Subject], AbstractContextManager[Server]]:
    def start(subject: Subject) -> AbstractContextManager[Server]:
        sent = (bodies.single(subject.pictures), bodies.forms(subject.pictures, 1))
        path = f"/predict/{subject.name}"

        def ready(server: Server) -> bool:
            return 200 in (
                server.status("POST", path, each.files[0], each.content_type) for each in sent
            )

        return _module(command, ready, {**os.environ, "MODEL": str(subject.model)})

    return start


def _module(
    command: Sequence[str], ready: Callable[[Server], bool], environment: Mapping[str, str]
) -> AbstractContextManager[Server]:
    """Start a server that is a Python module, on a free port."""
    port = service.free_port()
    full = [sys.executable, "-m", *(part.format(port=port) for part in command)]
    return service.started(full, port=port, ready=ready, environment=environment)


UVICORN = (
    *("uvicorn", "bench.throughput.peers.fastapi_app:app", "--workers", str(WORKERS)),
    *("--port", "{port}", "--no-access-log", "--log-level", "warning"),
)
BOUND = ("--workers", str(WORKERS), "--bind", "127.0.0.1:{port}", "--no-control-socket")
GUNICORN = ("gunicorn", "bench.throughput.peers.flask_app:app", *BOUND)
GTHREAD = ("gunicorn", "serving.app:create_app()", "--threads", "32", *BOUND)

CONTENDERS = {
    OURS: Contender(_convserve),
    "FastAPI, uvicorn[standard]": Contender(_peer(*UVICORN)),
    # As `pip install uvicorn` installs it: without uvloop and httptools.
    "FastAPI, uvicorn": Contender(_peer(*UVICORN, "--loop", "asyncio", "--http", "h11")),
    "Flask, gunicorn": Contender(
        _peer(*GUNICORN), single=lambda pictures: bodies.forms(pictures, 1)
    ),
}

# The comparison that decided for the event loop: the same routes, images and log lines by Flask.
DECISION = {
    OURS: Contender(_convserve),
    "its Flask application, gunicorn's threads": Contender(_flask_application),
}
