"""What gunicorn must do otherwise: load after the fork, drain without loss, log JSON.

Knows gunicorn; knows nothing of models or of HTTP. The application is imported in the worker alone,
so that no thread of onnxruntime is ever forked.
"""

import contextlib
import dataclasses
import json
import logging.config
import os
import select
import selectors
import socket
import sys
import threading
import time
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from gunicorn import glogging, util  # type: ignore[import-untyped]
from gunicorn.workers import gthread  # type: ignore[import-untyped]

from serving import listeners
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.api import Service

logger = logging.getLogger(__name__)

# A client that stops in the middle of a request holds a thread for so long, in seconds.
STALL = 10

# Seconds for a whole header, however its bytes come; a body has the time of its request.
HEADER = 5

# Seconds before a worker that could not load its models is replaced.
PAUSE = 1

# Seconds for a connection half made to be made, while no new one is begun.
HANDSHAKE = 0.2


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
        logging.config.dictConfig(logging_config(Settings.from_environ(os.environ).log_level))

    def access(self, *_: object) -> None:
        """Nothing: the application logs each request with its id, model and time."""

    def exception(self, msg: str, *args: object, **kwargs: object) -> None:
        """A client that stalled past ``STALL`` is no event; anything else is."""
        if not isinstance(sys.exc_info()[1], BlockingIOError):
            super().exception(msg, *args, **kwargs)


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    """gthread, with a slot, deadlines, a drain in two steps and sentences instead of tracebacks."""

    # The master's; here, as a reload reads gunicorn.conf.py anew.
    taken: ClassVar[set[int]] = set()
    models: ClassVar[Path]
    slot = 0
    _service: "Service | None" = None

    def load_wsgi(self) -> None:
        """Make the application, from the versions that the master has had tested.

        What is broken now broke since. The others go on; this one is replaced, at leisure.
        """
        from serving.app import SERVICE, create_app
        from serving.errors import ModelError

        settings = dataclasses.replace(Settings.from_environ(os.environ), models=self.models)
        try:
            self.wsgi = create_app(settings, slot=self.slot)
        except ModelError as exc:
            logger.critical("%s", exc)
            time.sleep(PAUSE)
            raise SystemExit(1) from None
        self._service = service = self.wsgi.extensions[SERVICE]
        self._drain_seconds = settings.drain_seconds
        self._body_seconds = settings.timeout_ms / 1000
        self._reading: dict[gthread.TConn, float] = {}
        util.write_error = json_error
        for listener in self.sockets:
            listeners.bound_stalls(listener, seconds=STALL)
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
        """SIGTERM: not ready at once; still accepting for a while, for load balancers to notice.

        Where only the worker is replaced there is nothing to notice.
        """
        if self._service is None or listeners.master_listens(self.sockets[0]):
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

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT, SIGQUIT: end at once.

        gunicorn shuts the thread pool down first, in this handler, which waits for ever where the
        signal came while the main thread held the pool's lock. The exit needs no such step.
        """
        super(gthread.ThreadWorker, self).handle_quit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Before the listeners close for good, take every connection the kernel accepted.

        gunicorn leaves them in the backlog, where closing the last listener resets them although
        their requests may have been sent. New ones are kept out first, or there would always be
        one between the last look and the close; those half made get a moment to arrive.
        """
        super().set_accept_enabled(enabled)
        if enabled or self.alive or listeners.master_listens(self.sockets[0]) is not False:
            return
        for listener in self.sockets:
            listeners.refuse_connections(listener)
            deadline = time.monotonic() + HANDSHAKE
            while select.select([listener], [], [], max(0, deadline - time.monotonic()))[0]:
                self.accept(listener)
            listener.close()

    def enqueue_req(self, conn: gthread.TConn) -> None:
        """No thread for a connection before its first byte; called by the main thread alone."""
        if conn.data_ready or conn.initialized or conn.wait_for_data(0):
            super().enqueue_req(conn)
            return
        seconds = self.cfg.keepalive if self.alive else gthread.STOP_KEEPALIVE_LINGER
        conn.timeout = time.monotonic() + seconds
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def _cap_keepalive(self, deadline: float) -> None:
        """A worker that stops waits no longer for a first byte than for a next request."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle(self, conn: gthread.TConn) -> object:
        """One request, whose header must be there in time."""
        self._reading[conn] = time.monotonic() + HEADER
        try:
            return super().handle(conn)
        finally:
            del self._reading[conn]

    def handle_request(self, req: object, conn: gthread.TConn) -> object:
        """The header is there; now the body must come in time."""
        self._reading[conn] = time.monotonic() + self._body_seconds
        return super().handle_request(req, conn)

    def notify(self) -> None:
        """Every second or so: end what a client drips. Its thread reads an end and answers."""
        super().notify()
        now = time.monotonic()
        for conn, deadline in list(self._reading.items()):
            if now > deadline:
                with contextlib.suppress(OSError):  # the client left
                    conn.sock.shutdown(socket.SHUT_RD)


def take_slot(worker: Worker) -> None:
    """Give a worker the lowest number that no living one has; called by the master."""
    taken = Worker.taken
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    taken.add(worker.slot)


def free_slot(worker: Worker) -> None:
    """Take the number back from a worker that is gone."""
    Worker.taken.discard(worker.slot)


def json_error(client: socket.socket, status: int, reason: str, message: str) -> None:
    """Answer what is not HTTP at all in the one shape of errors; gunicorn's own is a page.

    Its finer statuses (414, 431, 501 …) have no code of ours; their reason is in the message.
    """
    code = "internal_error" if status == 500 else "bad_request"
    status = 500 if status == 500 else 400
    body = json.dumps({"error": {"code": code, "message": message or reason}}) + "\n"
    client.sendall(
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1")
    )
