"""What gunicorn must do otherwise: load after the fork, drain without loss, log JSON.

Knows gunicorn; knows nothing of models or of HTTP. The application is imported in the worker alone,
so that no thread of onnxruntime is ever forked.
"""

import contextlib
import ctypes
import json
import logging.config
import os
import select
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from gunicorn import glogging, util  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from serving.api import Service

logger = logging.getLogger(__name__)

# A client that stops in the middle of a request holds a thread for so long, in seconds.
STALL = 10

# Seconds for a connection half made to be made, while no new one is begun.
HANDSHAKE = 0.2

# A classic BPF program: drop a TCP segment with SYN and without ACK, pass any other.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load byte 13 of the TCP header: the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)
_SO_ATTACH_FILTER = 26


def logging_config(level: str) -> dict[str, Any]:
    """The logging of every process: one JSON object a line on standard output."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
                "fmt": ["asctime", "levelname", "name", "message", "process"],
                "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
                "datefmt": "%Y-%m-%dT%H:%M:%S%z",
            }
        },
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.stdout",
            }
        },
        "root": {"level": "WARNING", "handlers": ["console"]},
        "loggers": {"serving": {"level": level.upper()}},
    }


class Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's messages through our handler; the access line is the application's."""

    def setup(self, cfg: object) -> None:
        """Give gunicorn's log no handler and no level of its own."""
        self.cfg = cfg
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
        logging.config.dictConfig(logging_config(os.environ.get("CONVSERVE_LOG_LEVEL", "info")))

    def access(self, *_: object) -> None:
        """Nothing: the application logs each request with its id, model and time."""

    def exception(self, msg: str, *args: object, **kwargs: object) -> None:
        """A client that stalled past ``STALL`` is no event; anything else is."""
        if not isinstance(sys.exc_info()[1], BlockingIOError):
            super().exception(msg, *args, **kwargs)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gthread, with a slot, a drain in two steps and a sentence instead of a traceback."""

    taken: ClassVar[set[int]] = set()  # the master's; here, as a reload reads gunicorn.conf.py anew
    slot = 0
    _service: "Service | None" = None

    def load_wsgi(self) -> None:
        """Make the application; a broken model or setting ends the whole service."""
        from serving.app import SERVICE, create_app
        from serving.errors import ModelError
        from serving.settings import Settings, SettingsError

        try:
            settings = Settings.from_environ(os.environ)
            self.wsgi = create_app(settings, slot=self.slot)
        except (SettingsError, ModelError) as exc:
            logger.critical("%s", exc)
            raise SystemExit(Arbiter.APP_LOAD_ERROR) from None
        self._service = service = self.wsgi.extensions[SERVICE]
        self._drain_seconds = settings.drain_seconds
        util.write_error = json_error
        for listener in self.sockets:
            _bound_stalls(listener)
        if self.slot == 0:
            logger.info(
                "serving",
                extra={
                    "address": ", ".join(str(listener) for listener in self.sockets),
                    "models": [str(model) for model in service.repository],
                    "workers": settings.processes,
                },
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: not ready at once; still accepting for a while, for load balancers to notice."""
        if self._service is None:  # still loading
            super().handle_exit(sig, frame)
            return
        if self._service.draining.is_set():
            return
        self._service.draining.set()
        if self._drain_seconds:
            timer = threading.Timer(self._drain_seconds, super().handle_exit, (sig, frame))
            timer.daemon = True
            timer.start()
        else:
            super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Before the listeners close for good, take every connection the kernel accepted.

        gunicorn leaves them in the backlog, where closing the last listener resets them although
        their requests may have been sent. New ones are kept out first, or there would always be
        one between the last look and the close; those half made get a moment to arrive.
        """
        super().set_accept_enabled(enabled)
        if enabled or self.alive or _master_listens(self.sockets[0]):
            return
        for listener in self.sockets:
            _refuse_connections(listener)
            deadline = time.monotonic() + HANDSHAKE
            while select.select([listener], [], [], max(0, deadline - time.monotonic()))[0]:
                self.accept(listener)
            listener.close()


def _bound_stalls(listener: socket.socket) -> None:
    """Connections inherit the listener's receive timeout: gthread gives a request none."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", STALL, 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", STALL, 0))


def _refuse_connections(listener: socket.socket) -> None:
    """Let the kernel drop what would begin a connection; the client tries again, and is refused."""
    code = b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(buffer))
    with contextlib.suppress(OSError):  # not Linux, or not TCP: the close is a little less clean
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _master_listens(listener: socket.socket) -> bool:
    """Whether only this worker stops (reload, replacement) and not the service.

    The master closes its listeners before it stops the workers; nothing else tells them.
    """
    try:
        ours = Path(f"/proc/self/fd/{listener.fileno()}").readlink()
        files = list(Path(f"/proc/{os.getppid()}/fd").iterdir())
    except OSError:
        return True
    for file in files:
        with contextlib.suppress(OSError):  # closed since it was listed
            if file.readlink() == ours:
                return True
    return False


def take_slot(worker: Worker) -> None:
    """Give a worker the lowest number that no living one has; called by the master."""
    taken = Worker.taken
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    taken.add(worker.slot)


def free_slot(worker: Worker) -> None:
    """Take the number back from a worker that is gone."""
    Worker.taken.discard(worker.slot)


def json_error(client: socket.socket, status: int, reason: str, message: str) -> None:
    """Answer what is not HTTP at all in the one shape of errors; gunicorn's own is a page."""
    code = "internal_error" if status >= 500 else "bad_request"
    body = json.dumps({"error": {"code": code, "message": message or reason}}) + "\n"
    client.sendall(
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1")
    )
