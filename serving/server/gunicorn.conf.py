"""gunicorn's settings, derived from ours. Read by the master, which loads no model."""

# ruff: noqa: N999 - gunicorn looks for this name

import atexit
import logging
import math
import os
import shutil
import signal
from functools import partial
from pathlib import Path

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]

from serving.inference.models import worker_state
from serving.monitoring import json_log, multiprocess, run_dir
from serving.server.worker import LOG_SECONDS, Logger, Worker, free_slot, report_hang, take_slot
from serving.settings import Settings

logger = logging.getLogger("serving.server.master")

_settings = Settings.from_environ(os.environ)
_run = Path(os.environ[run_dir.DIRECTORY])
_lock = run_dir.lock(_run)
_master = os.getpid()

wsgi_app = "serving.app:create_app()"  # gunicorn requires one; our worker makes its own
bind = _settings.bind
workers = _settings.processes
worker_class = Worker
logger_class = Logger
# Heartbeats on a disk stall with it; they need no room.
worker_tmp_dir = str(run_dir.MEMORY) if os.access(run_dir.MEMORY, os.W_OK) else None
preload_app = False
umask = 0o117  # of a Unix socket: for its owner and its group, a proxy's
keepalive = 75  # above the 60 s of most load balancers, which must close first
timeout = _settings.hang_seconds  # without a heartbeat; not for a request
graceful_timeout = math.ceil(_settings.drain_seconds + _settings.grace_seconds)
control_socket_disable = True


def on_starting(arbiter: Arbiter) -> None:
    """Wrap three methods of the arbiter, and clean up however the start ends.

    On SIGHUP workers look for new versions and are not replaced. Before a stop they can see that it
    is the whole service that ends, and not one worker that is replaced. Once a second the master
    writes what a stalled reader of the log did not accept.
    """
    arbiter.handle_hup = partial(arbiter.kill_workers, signal.SIGHUP)
    stop = arbiter.stop

    def announce_and_stop(graceful: bool = True) -> None:
        Worker.service_stops[0] = True
        stop(graceful)

    arbiter.stop = announce_and_stop
    wait = arbiter.wait_for_signals

    def flush_and_wait(timeout: float) -> list[int]:
        json_log.flush()
        return list(wait(timeout=timeout))

    arbiter.wait_for_signals = flush_and_wait
    atexit.register(_clean)
    if _run.parent != run_dir.MEMORY:
        reason = {"memory": str(run_dir.MEMORY), "folder": str(_run)}
        logger.warning("no room in shared memory: counts are kept on a disk", extra=reason)


def pre_fork(_: Arbiter, worker: Worker) -> None:
    """Assign a number to the worker; it continues the metrics of the last holder."""
    take_slot(worker)


def child_exit(_: Arbiter, worker: Worker) -> None:
    """Delete the gauges and the state of a worker that has ended, and free its number."""
    if worker.aborted:
        report_hang(worker, seconds=timeout)
    multiprocess.forget(_run, worker.slot)
    worker_state.forget(_run, worker.slot)
    free_slot(worker)


def pre_exec(_: Arbiter) -> None:
    """Refuse SIGUSR2: a second master would share sockets and metrics that the first one closes."""
    os._exit(1)


def _clean() -> None:
    """Delete the files of this run; a worker runs this at its exit, too, and must not."""
    if os.getpid() == _master:
        json_log.flush(seconds=LOG_SECONDS)
        shutil.rmtree(_run, ignore_errors=True)
