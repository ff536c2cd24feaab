"""A real service in its own processes, on a free port."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    """A started service and how to talk to it."""

    process: subprocess.Popen[str]
    port: int
    log: IO[str]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def open(self) -> socket.socket:
        """A connection on which nothing was sent."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self.connect()
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        return json.loads(self.request(method, path, body, **headers)[2])

    def children(self) -> set[str]:
        """The process ids of the workers."""
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def terminate(self) -> tuple[int, str]:
        """SIGTERM, and wait; the exit code and all that was logged."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        return self.process.returncode, self.output()

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read()


def environment(models: Path, **settings: object) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CONVSERVE_")}
    chosen = {f"CONVSERVE_{k.upper()}": str(v) for k, v in settings.items()}
    return {**inherited, "CONVSERVE_MODELS": str(models), **chosen}


def command_line(
    models: Path, *arguments: str, **settings: object
) -> subprocess.CompletedProcess[str]:
    """``python -m serving``, for a start that ends by itself."""
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
def running(models: Path, **settings: object) -> Iterator[Running]:
    """Start, wait until ready, and stop at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A file for the log: a pipe that nobody reads would fill and stop the service.
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving"],
            cwd=ROOT,
            env=environment(models, bind=f"127.0.0.1:{port}", **settings),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        service = Running(process, port, log)
        try:
            _wait_until_ready(service)
            yield service
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_until_ready(service: Running) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert service.process.poll() is None, service.output()
        try:
            if service.request("GET", "/readyz")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("The service did not become ready.")
