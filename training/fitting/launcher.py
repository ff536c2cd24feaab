"""The hosts that train together, as options or a launcher's environment name them, and the process
that does one host's part.

Knows processes and signals; knows neither Keras nor JAX, which could block both, nor publishing.
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NoReturn

from training.errors import HostLost, Preempted, TrainingError, UsageError
from training.start_up import NOISE

MARK = "CONVSERVE_HOST_PROCESS"  # in the environment of the process that does the work
# JAX's words for a lost host, for one that never joins, and for two with one index
LOST = ("Gloo", "UNAVAILABLE", "coordination service", "heartbeat", "DEADLINE_EXCEEDED")
TWICE = "ALREADY_EXISTS"
GRACE = 5.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Hosts:
    """All hosts of a job, and the index of this one."""

    coordinator: str  # HOST:PORT where host 0 listens
    count: int
    index: int


def find(options: argparse.Namespace, environment: Mapping[str, str]) -> Hosts | None:
    """Return the hosts that options or environment name, or None if this one trains alone.

    ``WORLD_SIZE`` or ``RANK`` means that a launcher started this process; ``MASTER_ADDR``,
    ``MASTER_PORT`` or ``JOB_COMPLETION_INDEX`` by itself means nothing. Raise ``UsageError`` if
    they contradict each other, or are incomplete.
    """
    given = {key: environment[key] for key in ("WORLD_SIZE", "RANK") if environment.get(key)}
    if options.hosts is not None:
        addresses = options.hosts.split(",")
        size = _number("WORLD_SIZE", given.get("WORLD_SIZE", str(len(addresses))))
        if not len(addresses) == len(set(addresses)) == size:
            raise UsageError(
                f"--hosts has {len(addresses)} addresses, {len(set(addresses))} of them different. "
                f"Expected: {size} different ones."
            )
    elif given:
        addresses, size = [_master(environment)], _number("WORLD_SIZE", given.get("WORLD_SIZE"))
    elif options.host_index is not None:
        raise UsageError("--host-index needs --hosts.")
    else:
        return None
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UsageError(
                f"Expected HOST:PORT, not {address!r}, in --hosts or MASTER_ADDR and MASTER_PORT."
            )
    return Hosts(addresses[0], size, _index(options, environment, size))


def _master(environment: Mapping[str, str]) -> str:
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UsageError(
            "torchrun listens on MASTER_PORT itself. Expected: --hosts with another port."
        )
    address, port = (environment.get(f"MASTER_{key}", "") for key in ("ADDR", "PORT"))
    return f"{address}:{port}"


def _index(options: argparse.Namespace, environment: Mapping[str, str], size: int) -> int:
    given = {"--host-index": options.host_index}
    given |= {name: environment.get(name) for name in ("RANK", "JOB_COMPLETION_INDEX")}
    name, text = next(((name, text) for name, text in given.items() if text), ("RANK", None))
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
    """Raise ``UsageError`` if a recipe's batch cannot be divided equally among the hosts."""
    if size % hosts.count:
        raise UsageError(
            f"{hosts.count} hosts cannot divide the batch of {size} images of {name} equally."
        )


def train(hosts: Hosts, options: argparse.Namespace, work: Callable[..., None]) -> None:
    """Do this host's part, ``work(options, hosts)``, in a separate process on the JAX backend.

    A process that waits for another host handles no signal, and JAX aborts it if that host is lost.
    This process waits for nothing else, so it can stop the other at once and report the reason.
    Only host 0 keeps a run folder and publishes; the folders of the others are temporary.

    Raises:
        HostLost: if JAX ended the process because another host is lost or never joined.
        Preempted: if SIGTERM was received.
        SystemExit: if the process ended by an error that it has reported.
        UsageError: if ``KERAS_BACKEND`` names another backend, or two hosts have one index.
    """
    if MARK in os.environ:
        _work(lambda: work(options, hosts))
    if options.backend not in (None, "jax"):
        raise UsageError(
            f"Several hosts train on the JAX backend, not on {options.backend!r}. Leave "
            "KERAS_BACKEND unset, or set it to jax."
        )
    if importlib.util.find_spec("jax") is None:
        raise UsageError("Several hosts need JAX. `pip install '.[train-jax]'` installs it.")
    with (
        tempfile.TemporaryDirectory(prefix="convserve-") as scratch,
        subprocess.Popen(
            [sys.executable, "-m", "training", *options.arguments]
            + (["--no-publish", f"--runs={scratch}"] if hosts.index else []),
            env=os.environ | {"KERAS_BACKEND": "jax", MARK: "1"},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that it ends together with its children
        ) as process,
    ):
        last = deque[bytes](maxlen=200)
        copying = threading.Thread(target=_copy, args=(process.stderr, last), daemon=True)
        copying.start()
        try:
            code = process.wait()
        finally:
            _end_group(process)
            copying.join(GRACE)
    # JAX aborts the process if a host is lost; a fault has other words
    said = b"".join(last).decode(errors="replace") if code == -signal.SIGABRT else ""
    if TWICE in said:
        raise UsageError(
            f"Another host has the index {hosts.index} too. Expected: each index from 0 to "
            f"{hosts.count - 1} once."
        )
    if any(word in said for word in LOST):
        raise HostLost
    _exit_with(code)


def _work(work: Callable[[], None]) -> NoReturn:
    """Do the work and end this process; end it too when its parent ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = 0
    try:
        work()
    except (TrainingError, Preempted) as exc:
        sys.stderr.write(f"training: {exc}\n")
        code = exc.exit_code
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001 - a bug, which os._exit would hide
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # JAX's exit handlers wait for hosts that may be lost


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run another command of ``python -m training`` with changes to the environment; raise
    ``SystemExit`` if it ended by an error that it has reported, ``TrainingError`` if killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *arguments], env=os.environ | environment
    )
    try:
        code = process.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
    _exit_with(code)


def _exit_with(code: int) -> None:
    """Raise ``SystemExit`` or ``TrainingError`` as a child process has ended."""
    if code < 0:
        raise TrainingError(f"A process of this command was killed by signal {-code}.")
    if code:
        sys.exit(code)


def _copy(lines: IO[bytes], last: deque[bytes]) -> None:
    """Copy the error output of a process to ours, without noise, and keep the last lines."""
    for line in lines:
        if NOISE.match(line):
            continue
        last.append(line)
        with suppress(OSError):  # closed stderr; the process must not block on its pipe
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # until the parent's end is closed
    os.killpg(0, signal.SIGKILL)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, which may outlive it: SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GRACE
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, number)
            while time.monotonic() < end:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.02)
