"""gunicorn's worker: an event loop that loads the application after the fork, balances connections
with other workers, and drains without loss; and gunicorn's log as JSON.

Knows gunicorn; knows nothing of models or of HTTP.
"""

import asyncio
import contextlib
import gc
import logging
import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from gunicorn import glogging  # type: ignore[import-untyped]
from gunicorn.workers import base  # type: ignore[import-untyped]

from serving.monitoring import json_log
from serving.server import sockets
from serving.server.accept import MOST, Acceptor
from serving.server.load import NONE, LoadTable, Selector, surplus
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.app.service import Service

logger = logging.getLogger(__name__)

# Seconds between two heartbeats.
BEAT_SECONDS = 1.0

# Seconds for which a worker that loads models gives heartbeats: a load that takes longer hangs.
LOAD_SECONDS = 120.0

# Seconds before a worker that could not load its models is replaced.
RESTART_DELAY = 1

# Seconds for which a process that ends waits for the reader of its log.
LOG_SECONDS = 1.0

# Seconds for which an idle connection stays open while the worker stops.
IDLE_SECONDS = 2.0


class Logger(glogging.Logger):  # type: ignore[misc]
    """The log of every process, gunicorn's messages included: one JSON object a line."""

    def setup(self, cfg: object) -> None:
        """Configure logging."""
        self.cfg = cfg
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
        logging.basicConfig(level=logging.WARNING, handlers=[json_log.Handler()], force=True)
        level = Settings.from_environ(os.environ).log_level
        logging.getLogger("serving").setLevel(level.upper())

    def access(self, *_: object) -> None:
        """Log nothing: the application logs each request with its id, model and time."""


class Worker(base.Worker):  # type: ignore[misc]
    """An event loop with a slot, a fair share of the connections, and a drain without loss."""

    # made by the master, inherited by the workers
    taken: ClassVar[set[int]] = set()
    loads: ClassVar[LoadTable] = LoadTable()
    service_stops: ClassVar[mmap.mmap] = mmap.mmap(-1, 1)  # shared: 1 if all workers are to stop
    hangs: ClassVar[memoryview] = memoryview(mmap.mmap(-1, 8)).cast("Q")  # shared: a count
    slot = 0
    _service: "Service"

    def init_process(self) -> None:
        """Make the event loop before the application, which needs it."""
        self._selector = Selector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        asyncio.set_event_loop(self.loop)
        self._stopping = asyncio.Event()
        self._quick = False
        super().init_process()

    def init_signals(self) -> None:
        """Let the event loop handle signals; it does not run before the application is loaded."""
        # SIGHUP first and never at its default, which would end the worker: it may arrive any time.
        self.loop.add_signal_handler(
            signal.SIGHUP, lambda: self._service.reloader.request_refresh()
        )
        for number in self.SIGNALS:
            if number != signal.SIGHUP:
                signal.signal(number, signal.SIG_DFL)
        self.loop.add_signal_handler(signal.SIGTERM, self._drain)
        for number in (signal.SIGINT, signal.SIGQUIT):
            self.loop.add_signal_handler(number, self._quit)
        for number in (signal.SIGUSR1, signal.SIGWINCH):
            self.loop.add_signal_handler(number, lambda: None)

    def load_wsgi(self) -> None:
        """Make the application, here in the worker: threads of onnxruntime must not be forked.

        Versions were tested at the service's start; those broken since are left out. If none is
        left, this worker is replaced after a delay.
        """
        from serving.app import SERVICE, create_app
        from serving.errors import ModelError
        from serving.server.dispatch import Dispatcher

        settings = Settings.from_environ(os.environ)
        try:
            with self._heartbeat():
                app = create_app(settings, slot=self.slot, loop=self.loop)
        except ModelError as exc:
            logger.critical("%s", exc)
            time.sleep(RESTART_DELAY)
            raise SystemExit(1) from None
        self._service = service = app.extensions[SERVICE]
        self.pool = Dispatcher(app, service).pool(keep_alive=self.cfg.keepalive)
        self.pool.active_changed = partial(self.loads.publish, self.slot)
        service.metrics.hangs = lambda: self.hangs[0]
        service.pipeline.batcher.active_requests = lambda: self.pool.in_progress
        self._selector.threads_work = lambda: service.pipeline.in_threads
        gc.freeze()  # collections that visit the application took a twentieth of the time
        if self.slot == 0:
            logger.info(
                "serving",
                extra={
                    "address": ", ".join(str(listener) for listener in self.sockets),
                    "models": [str(model) for model in service.repository],
                    "workers": settings.processes,
                },
            )

    @contextlib.contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Give heartbeats in a thread while the event loop does not run."""
        done = threading.Event()

        def beat() -> None:
            end = time.monotonic() + LOAD_SECONDS
            while time.monotonic() < end:
                self.notify()
                if done.wait(BEAT_SECONDS):
                    break

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def run(self) -> None:
        """Serve until a signal, then flush labels and log."""
        self.loop.run_until_complete(self._serve())
        self._service.feedback.writer.close()
        json_log.use(None)
        json_log.flush(seconds=LOG_SECONDS)
        self.loop.close()

    def _drain(self) -> None:
        """Handle SIGTERM: stop being ready, and accept until load balancers have noticed. A worker
        that is replaced alone stops accepting at once."""
        if not self.service_stops[0]:
            self._stopping.set()
        elif not self._service.draining.is_set():
            self._service.draining.set()
            if self.slot == 0:
                logger.info("stopping")
            self.loop.call_later(self._service.settings.drain_seconds, self._stopping.set)

    def _quit(self) -> None:
        """Handle SIGINT and SIGQUIT: stop without waiting for connections."""
        self._quick = True
        self._stopping.set()

    async def _serve(self) -> None:
        """Accept and balance connections until stopped, then drain."""
        json_log.use(self.loop)
        background = [self.loop.create_task(self._service.reloader.watch())]
        if self.slot == 0:  # one worker is enough
            background.append(self.loop.create_task(self._service.golden.watch()))
            background.append(self.loop.create_task(self._service.feedback.images.watch()))
            self._service.feedback.writer.probe()
        others = partial(self.loads.others, 2 * self._service.settings.processes, but=self.slot)
        own = partial(self.loads.of, self.slot)
        most = min(MOST, sockets.most_connections())
        acceptors = [
            Acceptor(self.pool, self.loop, listener.sock, others=others, own=own, most=most)
            for listener in self.sockets
        ]
        busy, _ = 0.0, self._selector.busy()  # loading does not count
        while not self._stopping.is_set() and self.ppid == os.getppid():
            self.notify()
            self.pool.refresh()
            self.loads.publish(self.slot, self.pool.active, busy)
            fraction = surplus(own(), others())
            self.pool.rebalance(fraction)
            for each in acceptors:
                each.spare = round(fraction * self.pool.active)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), BEAT_SECONDS)
            busy = self._selector.busy()
        for task in background:
            task.cancel()
        await asyncio.wait(background)
        self.pool.stopping = True
        self.pool.active_changed = lambda _: None
        self.loads.publish(self.slot, NONE)
        for each in acceptors:
            if self.service_stops[0] and not self._quick:
                each.drain(self.cfg.backlog)
            else:
                each.close()
        await self._drained()

    async def _drained(self) -> None:
        """Wait until all connections are closed: busy ones after their answers, idle ones soon."""
        now = self.loop.time()
        idle_until, end = now + IDLE_SECONDS, now + self.cfg.graceful_timeout
        while self.pool.clients and not self._quick and self.loop.time() < end:
            if self.loop.time() >= idle_until:
                self.pool.close_idle()
            self.notify()
            await asyncio.sleep(0.02)


def take_slot(worker: Worker) -> None:
    """Give a worker the lowest free number; called by the master."""
    taken = Worker.taken
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    taken.add(worker.slot)
    Worker.loads.publish(worker.slot, NONE)


def free_slot(worker: Worker) -> None:
    """Free the number of a worker that has ended."""
    Worker.taken.discard(worker.slot)
    Worker.loads.publish(worker.slot, NONE)


def report_hang(worker: Worker, *, seconds: int) -> None:
    """Log and count a worker that the master killed for its silence."""
    Worker.hangs[0] += 1
    extra = {"slot": worker.slot, "pid": worker.pid, "seconds": seconds}
    logger.error("a worker gave no heartbeat and is replaced", extra=extra)
