"""Which hosts train together, as options or a launcher's environment tell, and the process that
does one host's part.

Knows processes and signals; knows neither Keras nor JAX, which could keep it from hearing either.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NoReturn

from training.errors import HostLost, TrainingError, UsageError

MARK = "CONVSERVE_HOST_PROCESS"  # in the environment of the process that does the work
LOST = ("Gloo", "UNAVAILABLE", "coordination service", "heartbeat")  # what JAX says of it
GRACE = 5.0  # seconds that a process gets to end before it is killed


@dataclass(frozen=True)
class Hosts:
    """All hosts of a job, and which of them this one is."""

    coordinator: str  # HOST:PORT where host 0 listens
    count: int
    index: int


def add_options(command: argparse.ArgumentParser) -> None:
    """Let a command be told its hosts."""
    command.add_argument(
        "--hosts",
        metavar="HOST:PORT,…",
        help="train together, one process on each; by default those of MASTER_ADDR, MASTER_PORT "
        "and WORLD_SIZE, where a launcher sets them",
    )
    command.add_argument(
        "--host-index",
        metavar="I",
        help="which of them this one is, from 0 (default: $RANK or $JOB_COMPLETION_INDEX)",
    )


def find(options: argparse.Namespace, environment: Mapping[str, str]) -> Hosts | None:
    """The hosts that options or environment name; none where this one trains alone.

    ``WORLD_SIZE`` or ``RANK`` means that a launcher started this process; ``MASTER_ADDR``,
    ``MASTER_PORT`` or ``JOB_COMPLETION_INDEX`` by itself means nothing.

    Raises:
        UsageError: they contradict each other, or something is missing.
    """
    given = {key: environment[key] for key in ("WORLD_SIZE", "RANK") if environment.get(key)}
    if options.hosts is not None:
        addresses = options.hosts.split(",")
        size = _number("WORLD_SIZE", given.get("WORLD_SIZE", str(len(addresses))))
        if not len(addresses) == len(set(addresses)) == size:
            raise UsageError(
                f"--hosts names {len(set(addresses))} hosts in {len(addresses)} places; "
                f"expected {size} different ones."
            )
    elif given:
        addresses, size = [_master(environment)], _number("WORLD_SIZE", given.get("WORLD_SIZE"))
    elif options.host_index is not None:
        raise UsageError("--host-index says which of the --hosts this one is: give both.")
    else:
        return None
    for address in addresses:
        _check(address)
    return Hosts(addresses[0], size, _index(options, environment, size))


def _master(environment: Mapping[str, str]) -> str:
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UsageError("torchrun listens on MASTER_PORT itself. Give --hosts with another port.")
    address, port = (environment.get(f"MASTER_{key}", "") for key in ("ADDR", "PORT"))
    return f"{address}:{port}"


def _check(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f"Expected HOST:PORT, not {address!r}, in --hosts or MASTER_ADDR and MASTER_PORT."
        )


def _index(options: argparse.Namespace, environment: Mapping[str, str], size: int) -> int:
    told = {
        "--host-index": options.host_index,
        "RANK": environment.get("RANK"),
        "JOB_COMPLETION_INDEX": environment.get("JOB_COMPLETION_INDEX"),
    }
    name, text = next(((name, text) for name, text in told.items() if text), ("RANK", None))
    index = _number(name, text, least=0)
    if index >= size:
        raise UsageError(f"{name} is {index}. Expected 0 to {size - 1}: there are {size} hosts.")
    return index


def _number(name: str, text: str | None, *, least: int = 1) -> int:
    if text is None:
        raise UsageError(f"Hosts that train together need {name}, or --hosts and --host-index.")
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"{name} is {text!r}. Expected a whole number from {least}.")
    return int(text)


def check_batch(hosts: Hosts, name: str, size: int) -> None:
    """Refuse a recipe whose batch cannot be shared equally.

    Raises:
        UsageError: a host would get more images than another.
    """
    if size % hosts.count:
        raise UsageError(
            f"{hosts.count} hosts cannot share the batch of {size} images of {name} equally."
        )


def train(hosts: Hosts, options: argparse.Namespace, work: Callable[..., None]) -> None:
    """Do this host's part, ``work(options, hosts)``, in a process of its own on the JAX backend.

    A process that waits for another host hears no signal, and JAX aborts it when that host is
    lost. This one waits for nothing else, so it can stop it at once and tell what happened.
    Only host 0 keeps a run folder and publishes; the others' goes with them.

    Raises:
        HostLost: JAX ended the process because another host did not come or is gone.
        Preempted: a SIGTERM came.
        SystemExit: the process ended by an error that it has told.
        UsageError: ``KERAS_BACKEND`` names another backend.
    """
    if MARK in os.environ:
        _work(lambda: work(options, hosts))
    if options.backend not in (None, "jax"):
        raise UsageError(
            f"Several hosts train on the JAX backend, not on {options.backend!r}. Leave "
            "KERAS_BACKEND unset, or set it to jax."
        )
    if importlib.util.find_spec("jax") is None:
        raise UsageError("Several hosts need JAX: `pip install '.[train-jax]'` installs it.")
    with (
        tempfile.TemporaryDirectory(prefix="convserve-") as scratch,
        subprocess.Popen(
            [sys.executable, "-m", "training", *options.arguments]
            + (["--no-publish", f"--runs={scratch}"] if hosts.index else []),
            env=os.environ | {"KERAS_BACKEND": "jax", MARK: "1"},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that it ends together with what it starts
        ) as process,
    ):
        errors = _Errors(process)
        try:
            code = process.wait()
        finally:
            _end_group(process)
            errors.wait()
    if code == -signal.SIGABRT and errors.tell_of_a_lost_host():
        raise HostLost
    _pass_on(code)


def _work(work: Callable[[], None]) -> NoReturn:
    """Do it, and end this process; end it too when the one that started it ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = 0
    try:
        work()
    except TrainingError as exc:
        sys.stderr.write(f"training: {exc}\n")
        code = exc.exit_code
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001 - a bug, which Python would tell only at its exit
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an ordinary exit of JAX waits for hosts that may be gone


def export(options: argparse.Namespace, name: str) -> None:
    """Publish a run by another process: a process has one backend, and only TensorFlow exports.

    Raises:
        SystemExit: it ended by an error that it has told.
        TrainingError: it was killed.
    """
    folders = {"runs": options.runs, "models": options.models, "data-dir": options.data_dir}
    folders |= {"extra": options.extra} if options.extra else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "training", "export", name, f"--seed={options.seed}"]
        + [f"--{key}={folder}" for key, folder in folders.items()],
        # without the GPU, whose memory JAX holds
        env=os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"},
    )
    try:
        code = process.wait()
    finally:
        _end(process)
    _pass_on(code)


def _pass_on(code: int) -> None:
    """End as a process of ours has ended."""
    if code < 0:
        raise TrainingError(f"A process of this command was killed by signal {-code}.")
    if code:
        sys.exit(code)


class _Errors:
    """What a process writes of its errors: passed on, and the last lines kept."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._last: deque[bytes] = deque(maxlen=200)
        self._thread = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Read to the end, which the process has reached."""
        self._thread.join(GRACE)

    def tell_of_a_lost_host(self) -> bool:
        """Whether JAX aborted the process for that, and not for a fault of its own."""
        return any(word.encode() in line for line in self._last for word in LOST)

    def _read(self, lines: IO[bytes]) -> None:
        for line in lines:
            self._last.append(line)
            with suppress(OSError):  # nobody listens; the process must not wait for us all the same
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # until its other end is closed
    os.killpg(0, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end where it has not, then make it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask it and all that it has started, which may live longer, to end, then make them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GRACE
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, number)
            while time.monotonic() < end:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.02)
