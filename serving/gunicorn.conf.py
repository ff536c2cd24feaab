"""gunicorn's settings, from ours. Read by the master, which loads no model and imports no Flask."""

# ruff: noqa: N999 - gunicorn looks for this name

import atexit
import math
import os
import shutil
from pathlib import Path

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from prometheus_client.multiprocess import mark_process_dead

from serving import versions
from serving.settings import Settings
from serving.worker import Logger, Worker, free_slot, take_slot

_settings = Settings.from_environ(os.environ)
_run = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
_master = os.getpid()
_memory = Path("/dev/shm")  # noqa: S108 - heartbeats on a disk stall with it

wsgi_app = "serving.app:create_app()"  # gunicorn demands one; our worker makes its own
bind = _settings.bind
workers = _settings.processes
threads = _settings.threads
worker_class = Worker
logger_class = Logger
worker_tmp_dir = str(_memory) if os.access(_memory, os.W_OK) else None
worker_connections = 1000 + threads
preload_app = False
keepalive = 75  # above the 60 s of most load balancers, or they meet a closed connection
timeout = 120  # without a heartbeat; covers the loading of models, not a request
graceful_timeout = math.ceil(_settings.drain_seconds + _settings.grace_seconds)
control_socket_disable = True


def on_starting(_: Arbiter) -> None:
    """Serve the versions that were tested, and leave nothing behind, however the start ends."""
    Worker.models = _run / versions.FIRST
    atexit.register(_clean)


def on_reload(_: Arbiter) -> None:
    """Serve what is published now; a broken version leaves all as it was."""
    Worker.models = versions.renew(_settings.models, Worker.models)


def pre_fork(_: Arbiter, worker: Worker) -> None:
    """Number the worker; its metrics go on where those of the last holder of the number stopped."""
    take_slot(worker)


def child_exit(_: Arbiter, worker: Worker) -> None:
    """Forget the gauges of a worker that is gone, and free its number."""
    mark_process_dead(worker.slot)  # type: ignore[no-untyped-call]
    free_slot(worker)


def pre_exec(_: Arbiter) -> None:
    """Refuse SIGUSR2: a second master would share sockets and metrics that the first one closes."""
    os._exit(1)


def _clean() -> None:
    """Remove what only this run needed; a worker that ends comes here too, and must not."""
    if os.getpid() == _master:
        shutil.rmtree(_run, ignore_errors=True)
