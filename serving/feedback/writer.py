"""Write the labels of many requests in shared transactions (group commit).

One writer per worker, in its event loop; the database is called in a thread. Knows nothing of HTTP.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from serving.errors import DeadlineExceeded, FeedbackUnavailable, Overloaded
from serving.feedback.database import Database
from serving.feedback.labels import Label

GROUP = 1000  # labels per transaction, unless a single request has more
STUCK = 12.0  # seconds of a transaction after which no more labels queue behind it
QUEUED = 16_000  # labels of all waiting requests

Before = list[str | None]  # for each label, the one stored before


class Writer:
    """A queue of labels, written first in, first out."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: deque[tuple[Sequence[Label], asyncio.Future[Before]]] = deque()
        self._queued = 0  # labels
        self._began: float | None = None  # the start of the running transaction
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="labels")

    def probe(self) -> None:
        """Query the database in the thread, so that the log reports an unreachable one early."""
        self._thread.submit(self._database.sums)

    def close(self) -> None:
        """Finish the running transaction and close the database."""
        self._thread.shutdown()
        self._database.close()

    async def write(self, labels: Sequence[Label], deadline: float) -> Before:
        """Write the labels of one request before a ``time.monotonic()``; return for each the label
        stored before, or None.

        Raises:
            DeadlineExceeded: if it passed; the labels may still be written. Retries are idempotent.
            FeedbackUnavailable: if the database is unreachable; send the labels again.
            Overloaded: if too many labels wait.
        """
        if not labels:
            return []
        stuck = self._began is not None and time.monotonic() - self._began > STUCK
        if stuck or self._database.unreachable:
            raise FeedbackUnavailable("The database of labels is unreachable. Try again later.")
        if self._queued and self._queued + len(labels) > QUEUED:
            raise Overloaded(f"{self._queued} labels wait to be written. Try again later.")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Before] = loop.create_future()
        self._queue.append((labels, result))
        self._queued += len(labels)
        self._write_group(loop)
        try:
            async with asyncio.timeout_at(deadline):
                return await result
        except TimeoutError:
            raise DeadlineExceeded(
                "The deadline passed before the labels were written. Send them again."
            ) from None

    def _write_group(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a transaction with the queued labels, unless one is running."""
        if self._began is not None or not self._queue:
            return
        self._began = time.monotonic()
        group: list[tuple[int, asyncio.Future[Before]]] = []
        labels: list[Label] = []
        while self._queue and (not group or len(labels) + len(self._queue[0][0]) <= GROUP):
            own, result = self._queue.popleft()
            group.append((len(own), result))
            labels += own
        self._queued -= len(labels)
        writing = loop.run_in_executor(self._thread, self._database.write, labels)
        writing.add_done_callback(lambda done: self._finish_group(loop, group, done))

    def _finish_group(
        self,
        loop: asyncio.AbstractEventLoop,
        group: Sequence[tuple[int, "asyncio.Future[Before]"]],
        done: "asyncio.Future[Before]",
    ) -> None:
        self._began = None
        start = 0
        for count, result in group:
            if not result.done():  # otherwise its request has passed the deadline
                if (exc := done.exception()) is not None:
                    result.set_exception(exc)
                else:
                    result.set_result(done.result()[start : start + count])
            start += count
        self._write_group(loop)
