"""Start a server in its own processes on a free port, look at it from outside, and stop it.

Knows processes, /proc and HTTP; knows nothing of what is measured.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
WORKERS = 2
START_SECONDS = 120.0
STOP_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A started server, ours or another."""

    process: subprocess.Popen[str]
    port: int
    log: IO[str]
    ready_after: float = 0.0  # seconds from its start

    def connect(self, seconds: float = 60.0) -> http.client.HTTPConnection:
        """A connection, made by its first request."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def status(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> int:
        """The status of one request on a connection of its own."""
        return self.answer(method, path, body, kind)[0]

    def answer(
        self, method: str, path: str, body: bytes | None = None, kind: str = ""
    ) -> tuple[int, bytes]:
        """Status and body of one request on a connection of its own."""
        connection = self.connect()
        try:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """The process ids of the children."""
        return children(self.process.pid)

    def processes(self) -> list[int]:
        """The process ids of all: the first, its children and theirs."""
        found = [self.process.pid]
        for pid in found:
            found += children(pid)
        return found

    def pss(self) -> float:
        """Megabytes of memory of all processes, what they share counted once."""
        return sum(pss(pid) for pid in self.processes())

    def cpu(self) -> dict[int, float]:
        """Seconds of processor time of each process until now."""
        return {pid: cpu_seconds(pid) for pid in self.processes()}

    def output(self) -> str:
        """What it wrote."""
        self.log.seek(0)
        return self.log.read()


def children(pid: int) -> list[int]:
    """The children of a process; none where it is gone."""
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def pss(pid: int) -> float:
    """Megabytes of a process, shared pages divided among those that share them."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    """Processor time of a process."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    return 0.0


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def started(
    command: Sequence[str],
    *,
    port: int,
    ready: Callable[[Server], bool],
    environment: Mapping[str, str],
    folder: Path = ROOT,
    user: str | None = None,
    ends: signal.Signals = signal.SIGTERM,
) -> Iterator[Server]:
    """Start in ``folder``, as ``user`` if named, wait until ready, and stop at the end."""
    # A file for the log: a pipe that nobody reads would fill and stop the server.
    with tempfile.TemporaryFile("w+") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
        server = Server(process, port, log)
        try:
            _wait(server, ready, began + START_SECONDS)
            server.ready_after = time.monotonic() - began
            yield server
        finally:
            _stop(server, ends)


def _wait(server: Server, ready: Callable[[Server], bool], deadline: float) -> None:
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"The server did not start:\n{server.output()}")
        try:
            if ready(server):
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.02)
    raise TimeoutError(f"The server did not become ready:\n{server.output()}")


def _stop(server: Server, by: signal.Signals) -> None:
    everybody = server.processes()
    server.process.send_signal(by)
    try:
        server.process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in everybody:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.process.wait()


def convserve_environment(models: Path, **settings: object) -> dict[str, str]:
    """This environment without its settings of Convserve, with these."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CONVSERVE_")}
    chosen = {f"CONVSERVE_{k.upper()}": str(v) for k, v in settings.items()}
    return {**inherited, "CONVSERVE_MODELS": str(models), **chosen}


@contextmanager
def convserve(models: Path, under: Sequence[str] = (), /, **settings: object) -> Iterator[Server]:
    """Convserve as it ships, but for ``settings`` and for its database of labels, which is empty;
    ``under`` another program, such as strace."""
    bind = str(settings.setdefault("bind", f"127.0.0.1:{free_port()}"))
    with tempfile.TemporaryDirectory(prefix="convserve-labels-") as scratch:
        settings.setdefault("feedback_url", f"sqlite:///{scratch}/feedback.db")
        with started(
            [*under, sys.executable, "-m", "serving"],
            port=int(bind.rpartition(":")[2]),
            ready=lambda server: server.status("GET", "/readyz") == 200,
            environment=convserve_environment(models, **settings),
        ) as server:
            yield server


def newest(name: str) -> Path:
    """The folder of the highest published version of a model."""
    versions = [path for path in (MODELS / name).iterdir() if path.name.isdigit()]
    return max(versions, key=lambda path: int(path.name))


@contextmanager
def only(folders: Sequence[Path]) -> Iterator[Path]:
    """A folder of models that holds just these versions."""
    with tempfile.TemporaryDirectory(prefix="convserve-bench-") as scratch:
        for folder in folders:
            to = Path(scratch, folder.parent.name)
            to.mkdir(exist_ok=True)
            (to / folder.name).symlink_to(folder, target_is_directory=True)
        yield Path(scratch)
