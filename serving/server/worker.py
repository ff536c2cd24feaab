"""What gunicorn must do otherwise: load after the fork, drain without loss, log JSON.

Knows gunicorn; knows nothing of models or of HTTP. The application is made in the worker alone, so
that no thread of onnxruntime is ever forked.
"""

import asyncio
import contextlib
import gc
import logging.config
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from gunicorn import glogging  # type: ignore[import-untyped]
from gunicorn.workers import base  # type: ignore[import-untyped]

from serving.monitoring import json_log
from serving.server import sockets
from serving.server.accept import MOST, Accepting
from serving.server.http.pool import Server
from serving.server.load import NONE, Selector, Shares, surplus
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.app.service import Service

logger = logging.getLogger(__name__)

# Seconds before a worker that could not load its models is replaced.
PAUSE = 1

# Seconds for a connection half made to be made, while no new one is begun.
HANDSHAKE = 0.2

# Seconds for which a connection that idles stays open while the worker stops.
LINGER = 2.0


def logging_config(level: str) -> dict[str, Any]:
    """The logging of every process: one JSON object a line on standard output."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "serving.monitoring.json_log.Handler"}},
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


class Worker(base.Worker):  # type: ignore[misc]
    """An event loop, with a slot, a fair share of connections and a drain without loss."""

    # The master's.
    taken: ClassVar[set[int]] = set()
    shares: ClassVar[Shares] = Shares()
    slot = 0
    _service: "Service | None" = None

    def init_process(self) -> None:
        """Make the loop before the application, which needs it."""
        self._selector = Selector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        asyncio.set_event_loop(self.loop)
        self._told_to_stop = asyncio.Event()
        self._at_once = False
        super().init_process()

    def init_signals(self) -> None:
        """The loop hears them, between two steps."""
        # First, and never at its default: it may come at any moment, and must end no worker.
        self.loop.add_signal_handler(signal.SIGHUP, self._look)
        for number in self.SIGNALS:
            if number != signal.SIGHUP:
                signal.signal(number, signal.SIG_DFL)
        self.loop.add_signal_handler(signal.SIGTERM, self._drain)
        for number in (signal.SIGINT, signal.SIGQUIT):
            self.loop.add_signal_handler(number, self._end_at_once)
        for number in (signal.SIGUSR1, signal.SIGWINCH):
            self.loop.add_signal_handler(number, lambda: None)

    def load_wsgi(self) -> None:
        """Make the application. The versions were tested at the service's start; those that broke
        since are left out. If none is left, this worker is replaced, at leisure.
        """
        from serving.app import SERVICE, create_app
        from serving.errors import ModelError
        from serving.server.dispatch import Front

        settings = Settings.from_environ(os.environ)
        try:
            app = create_app(settings, slot=self.slot, loop=self.loop)
        except ModelError as exc:
            logger.critical("%s", exc)
            time.sleep(PAUSE)
            raise SystemExit(1) from None
        self._service = service = app.extensions[SERVICE]
        front = Front(app, service)
        self.server = Server(front.respond, keep_alive=self.cfg.keepalive)
        service.pipeline.batcher.coming = lambda: self.server.at_work
        self._selector.works = lambda: service.pipeline.in_threads
        self.server.changed = partial(self.shares.tell, self.slot)
        gc.freeze()  # what is there now stays: to look at it again and again took a twentieth
        self._drain_seconds, self._processes = settings.drain_seconds, settings.processes
        if self.slot == 0:
            logger.info(
                "serving",
                extra={
                    "address": ", ".join(str(listener) for listener in self.sockets),
                    "models": [str(model) for model in service.repository],
                    "workers": settings.processes,
                },
            )

    def run(self) -> None:
        """Serve until told to stop."""
        assert self._service is not None  # noqa: S101 - it was loaded
        self.loop.run_until_complete(self._serve())
        self._service.feedback.writer.close()
        json_log.use(None)
        json_log.flush()
        self.loop.close()

    def _look(self) -> None:
        """SIGHUP: look at what is published."""
        if self._service is not None:
            self._service.reloader.look_now()

    def _drain(self) -> None:
        """SIGTERM: not ready at once; still accepting for a while, for load balancers to notice.

        Where only the worker is replaced there is nothing to notice.
        """
        if self._service is None or sockets.master_listens(self.sockets[0]):
            self._told_to_stop.set()
        elif not self._service.draining.is_set():
            self._service.draining.set()
            if self.slot == 0:
                logger.info("stopping")
            self.loop.call_later(self._drain_seconds, self._told_to_stop.set)

    def _end_at_once(self) -> None:
        """SIGINT, SIGQUIT."""
        self._at_once = True
        self._told_to_stop.set()

    async def _serve(self) -> None:
        """Accept until told to stop, then end without loss."""
        assert self._service is not None  # noqa: S101 - it was loaded
        json_log.use(self.loop)
        watching = [self.loop.create_task(self._service.reloader.watch())]
        if self.slot == 0:  # one of them is enough
            watching.append(self.loop.create_task(self._service.golden.watch()))
            watching.append(self.loop.create_task(self._service.feedback.images.watch()))
            self._service.feedback.writer.probe()
        others = partial(self.shares.others, 2 * self._processes, but=self.slot)
        own = partial(self.shares.of, self.slot)
        most = min(MOST, sockets.most_connections())
        accepting = [
            Accepting(self.server, self.loop, listener.sock, others=others, own=own, most=most)
            for listener in self.sockets
        ]
        busy, _ = 0.0, self._selector.busy()  # to load took all its time
        while not self._told_to_stop.is_set() and self.ppid == os.getppid():
            self.notify()
            self.server.look()
            self.shares.tell(self.slot, self.server.active, busy)
            part = surplus(own(), others())
            self.server.let_go(part)
            for each in accepting:
                each.spare = round(part * self.server.active)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_stop.wait(), 1.0)
            busy = self._selector.busy()
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
        self.server.stops = True
        self.server.changed = lambda _: None
        self.shares.tell(self.slot, NONE)
        if not self._at_once and sockets.master_listens(self.sockets[0]) is False:
            # New ones are kept out first, or there would always be one between the last look and
            # the close, which resets it; those half made get a moment to arrive.
            for each in accepting:
                each.refuse()
            await asyncio.sleep(HANDSHAKE)
        for each in accepting:
            each.stop()
        await self._ended()

    async def _ended(self) -> None:
        """Wait for the connections: those at work to their end, those that idle for a moment."""
        now = self.loop.time()
        linger, end = now + LINGER, now + self.cfg.graceful_timeout
        while self.server.clients and not self._at_once and self.loop.time() < end:
            if self.loop.time() >= linger:
                for connection in [each for each in self.server.connections if each.idle]:
                    connection.close()
            self.notify()
            await asyncio.sleep(0.02)


def take_slot(worker: Worker) -> None:
    """Give a worker the lowest number that no living one has; called by the master."""
    taken = Worker.taken
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    taken.add(worker.slot)
    Worker.shares.tell(worker.slot, NONE)


def free_slot(worker: Worker) -> None:
    """Take the number back from a worker that is gone."""
    Worker.taken.discard(worker.slot)
    Worker.shares.tell(worker.slot, NONE)
