"""Start a server in its own processes on a free port, observe it from outside, and stop it.

Knows processes and HTTP; knows nothing of what is measured.
"""

import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import IO, Any, TypeVar

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
WORKERS = 2
START_SECONDS = 120.0
STOP_SECONDS = 60.0
# Below the ports of outgoing connections, in another order in each process.
_PORTS = cycle(random.SystemRandom().sample(range(20_000, 32_000), 12_000))

Value = TypeVar("Value")


@dataclass
class Server:
    """A started server, ours or another."""

    process: subprocess.Popen[str]
    port: int
    log: IO[str]
    ready_after: float = 0.0  # seconds from its start

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection, which its first request opens."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def status(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> int:
        """Return the status of one request on a new connection; 0 if there is no answer."""
        with suppress(OSError, http.client.HTTPException):
            return self.answer(method, path, body, kind)[0]
        return 0

    def answer(
        self, method: str, path: str, body: bytes | None = None, kind: str = ""
    ) -> tuple[int, bytes]:
        """Return status and body of the answer to one request on a new connection."""
        with closing(self.connect()) as connection:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            response = connection.getresponse()
            return response.status, response.read()

    def workers(self) -> list[int]:
        """Return the process ids of the living children."""

        def living(it: Any) -> list[int]:
            return [each.pid for each in it.children() if each.status() != "zombie"]

        return observe(self.process.pid, living, [])

    def processes(self) -> list[int]:
        """Return the process ids of the server, its children and theirs."""
        own = [self.process.pid]
        return own + observe(own[0], lambda it: [e.pid for e in it.children(recursive=True)], [])

    def pss(self) -> float:
        """Return the megabytes of memory of all processes; shared pages count once."""
        found = [observe(pid, lambda it: it.memory_full_info().pss, 0) for pid in self.processes()]
        return sum(found) / 2**20

    def cpu(self) -> dict[int, float]:
        """Return the seconds of processor time of each process until now."""
        pids = self.processes()
        return {pid: observe(pid, lambda it: sum(it.cpu_times()[:2]), 0.0) for pid in pids}

    def output(self) -> str:
        """Return what the server wrote to stdout and stderr."""
        self.log.seek(0)
        return self.log.read()


def observe(pid: int, read: Callable[[Any], Value], otherwise: Value) -> Value:
    """Return what ``read`` finds in a psutil.Process; ``otherwise`` if the process is gone."""
    import psutil  # here, so that `require` can name the package where it is missing

    try:
        return read(psutil.Process(pid))
    except psutil.Error:
        return otherwise


def until(
    true: Callable[[], bool], seconds: float, otherwise: str | Callable[[], str], every: float = 0.1
) -> None:
    """Return as soon as ``true()``, which is checked every ``every`` seconds.

    Raises:
        TimeoutError: with the text ``otherwise``, if ``seconds`` have passed.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(every)


def free_port() -> int:
    """Return a port on which no process listens, and which this process has not returned yet."""
    for port in _PORTS:
        with suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError


@contextmanager
def started(
    command: Sequence[str],
    *,
    port: int,
    ready: Callable[[Server], bool],
    environment: Mapping[str, str],
    folder: Path = ROOT,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[Server]:
    """Start a server in ``folder``; yield it when ready; stop it.

    Raises:
        RuntimeError: the server exited before it was ready.
        TimeoutError: the server was not ready in time.
    """
    # A file for the log: a pipe that nobody reads would fill and block the server.
    with tempfile.TemporaryFile("w+") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        server = Server(process, port, log)

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"The server did not start:\n{server.output()}")
            return ready(server)

        def late() -> str:
            return f"The server did not become ready:\n{server.output()}"

        try:
            until(answers, START_SECONDS, late, every=0.02)
            server.ready_after = time.monotonic() - began
            yield server
        finally:
            processes = server.processes()
            process.send_signal(stop_signal)
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                for pid in processes:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()


def is_ready(server: Server) -> bool:
    """Return True if Convserve accepts requests."""
    return server.status("GET", "/readyz") == 200


def convserve_environment(models: Path, **settings: object) -> dict[str, str]:
    """Return this environment with ``settings`` in place of its settings of Convserve."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CONVSERVE_")}
    chosen = {f"CONVSERVE_{k.upper()}": str(v) for k, v in settings.items()}
    return {**inherited, "CONVSERVE_MODELS": str(models), **chosen}


@contextmanager
def convserve(
    models: Path, under: Sequence[str] = (), folder: Path = ROOT, /, **settings: object
) -> Iterator[Server]:
    """Start Convserve as it ships, but for ``settings`` and an empty database of labels.

    ``under`` is the command line of a program that starts it, such as strace; ``folder`` is its
    checkout.
    """
    bind = str(settings.setdefault("bind", f"127.0.0.1:{free_port()}"))
    with tempfile.TemporaryDirectory(prefix="convserve-labels-") as scratch:
        settings.setdefault("feedback_url", f"sqlite:///{scratch}/feedback.db")
        with started(
            [*under, sys.executable, "-m", "serving"],
            port=int(bind.rpartition(":")[2]),
            ready=is_ready,
            environment=convserve_environment(models, **settings),
            folder=folder,
        ) as server:
            yield server


@contextmanager
def shipped(names: Sequence[str], /, **settings: object) -> Iterator[Server]:
    """Serve the newest version of each model with two workers."""
    models = [newest(name) for name in names]
    with only(models) as folder, convserve(folder, **{"workers": WORKERS, **settings}) as server:
        yield server


def versions(name: str) -> list[Path]:
    """Return the folders of the published versions of a model, the oldest first."""
    found = [path for path in (MODELS / name).iterdir() if path.name.isdigit()]
    return sorted(found, key=lambda path: int(path.name))


def newest(name: str) -> Path:
    """Return the folder of the newest published version of a model."""
    return versions(name)[-1]


@contextmanager
def only(folders: Sequence[Path]) -> Iterator[Path]:
    """Make a folder of models that holds just these versions."""
    with tempfile.TemporaryDirectory(prefix="convserve-bench-") as scratch:
        for folder in folders:
            shutil.copytree(folder, Path(scratch, folder.parent.name, folder.name))
        yield Path(scratch)
