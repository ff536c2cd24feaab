"""A real service in its own processes, on a free port."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.rig import service

ROOT, environment = service.ROOT, service.convserve_environment


class Running(service.Server):
    """A started service, and requests to it."""

    def open(self) -> socket.socket:
        """Open a connection on which nothing was sent."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self.connect()
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return response.status, _titled(response.getheaders()), response.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        return json.loads(self.request(method, path, body, **headers)[2])

    def children(self) -> set[str]:
        """Return the process ids of the workers."""
        return {str(pid) for pid in self.workers()}

    def terminate(self) -> tuple[int, str]:
        """Send SIGTERM and wait. Return the exit code and the log."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        return self.process.returncode, self.output()


def _titled(headers: list[tuple[str, str]]) -> dict[str, str]:
    return {name.title().replace("-Id", "-ID"): text for name, text in headers}


def command_line(
    models: Path, *arguments: str, **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m serving`` for a start that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "serving", *arguments],
        cwd=ROOT,
        env=environment(models, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(models: Path, under: Sequence[str] = (), /, **settings: object) -> Iterator[Running]:
    """Start, ``under`` another program if given, wait until ready, and stop at the end."""
    with reserved_port() as port:
        settings.setdefault("bind", f"127.0.0.1:{port}")
        with service.convserve(models, under, **settings) as started:
            yield Running(started.process, started.port, started.log)


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a port: no other process is given it, but a server may listen on it.

    Linux lets two sockets with SO_REUSEADDR bind a port as long as only one of them listens.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
