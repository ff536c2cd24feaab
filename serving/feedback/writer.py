"""Labels of many requests, written in transactions that they share.

One per worker, in its event loop; the database is asked in a thread. Knows the store; knows nothing
of HTTP or of ids.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from serving.errors import DeadlineExceeded, FeedbackUnavailable, Overloaded
from serving.feedback.labels import Label

if TYPE_CHECKING:
    from serving.feedback.database import Store

TOGETHER = 1000  # labels of one transaction, unless a single request has more
STUCK = 12.0  # seconds of a transaction, after which no more labels wait for it
WAITING = 16_000  # labels of all requests that wait

Answers = list[str | None]  # for each label the one that was there before


class Recorder:
    """Writes what comes, in the order in which it comes."""

    def __init__(self, store: Callable[[], "Store"]) -> None:
        """``store`` is made when it is first needed: its library takes a third of a second."""
        self._make, self._made = store, threading.Lock()
        self._store: Store | None = None
        self._waiting: deque[tuple[Sequence[Label], asyncio.Future[Answers]]] = deque()
        self._labels = 0
        self._running, self._since = False, 0.0  # a transaction, and since when
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="labels")

    @property
    def store(self) -> "Store":
        """The database; not for the event loop."""
        with self._made:
            if self._store is None:
                self._store = self._make()
            return self._store

    def look(self) -> None:
        """Have a database that is away told in the log before a label comes."""
        self._thread.submit(lambda: self.store.sums())

    def close(self) -> None:
        """Let the database go, once what is being written is: SQLite puts all into its one file."""
        self._thread.shutdown()
        if self._store is not None:
            self._store.close()

    async def record(self, labels: Sequence[Label], deadline: float) -> Answers:
        """Write the labels of one request, by a ``time.monotonic()``; of each the one that was
        there before, or None.

        Raises:
            DeadlineExceeded: they may be written later, or not; to send them again does no harm.
            FeedbackUnavailable: the database is away; send them again.
            Overloaded: too many wait.
        """
        if not labels:
            return []
        stuck = self._running and time.monotonic() - self._since > STUCK
        if stuck or (self._store is not None and self._store.away):
            raise FeedbackUnavailable("The database of labels is away. Try again later.")
        if self._labels and self._labels + len(labels) > WAITING:
            raise Overloaded(f"{self._labels} labels wait to be written. Try again later.")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answers] = loop.create_future()
        self._waiting.append((labels, answer))
        self._labels += len(labels)
        self._write(loop)
        try:
            async with asyncio.timeout_at(deadline):
                return await answer
        except TimeoutError:
            raise DeadlineExceeded(
                "The deadline passed before the labels were written. Send them again."
            ) from None

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        """One transaction, of what waits; the next when it has ended."""
        if self._running or not self._waiting:
            return
        self._running, self._since = True, time.monotonic()
        taken: list[tuple[int, asyncio.Future[Answers]]] = []
        labels: list[Label] = []
        while self._waiting and (not taken or len(labels) + len(self._waiting[0][0]) <= TOGETHER):
            given, answer = self._waiting.popleft()
            taken.append((len(given), answer))
            labels += given
        self._labels -= len(labels)
        writing = loop.run_in_executor(self._thread, lambda: self.store.record(labels))
        writing.add_done_callback(lambda done: self._written(loop, taken, done))

    def _written(
        self,
        loop: asyncio.AbstractEventLoop,
        taken: Sequence[tuple[int, "asyncio.Future[Answers]"]],
        done: "asyncio.Future[Answers]",
    ) -> None:
        self._running = False
        start = 0
        for count, answer in taken:
            if answer.done():  # nobody waits for it any more
                pass
            elif (exc := done.exception()) is not None:
                answer.set_exception(exc)
            else:
                answer.set_result(done.result()[start : start + count])
            start += count
        self._write(loop)
