"""Micro-batching: the images of waiting requests are joined into one inference.

One batcher per worker, in its event loop. Knows nothing of image files or of HTTP. A short
inference runs in the loop itself: a handover to a thread would cost more than it saves. A long one
runs in a thread, and so does one on a device: while the device computes, the loop can decode.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded
from serving.inference.images.decoder import Spent
from serving.inference.models.model import Model

IN_LOOP = 0.02  # seconds for which an inference may hold the loop, and delay a probe
IN_THREAD = 0.04  # seconds of an inference of several images in a thread, and of others' delay
MAX_BATCH = 16  # images of one inference: bounds onnxruntime's arena

Rows = NDArray[np.float32]


@dataclass(eq=False)
class Pending:
    """A request, some of whose images may be in an inference or answered."""

    images: NDArray[np.uint8]
    answer: "asyncio.Future[Rows]"
    spent: Spent
    since: float  # when it joined the queue, or its last inference ended
    taken: int = 0  # images
    answered: int = 0  # images
    rows: Rows | None = None

    def resolve(self, part: slice, rows: Rows) -> None:
        """Store the answer of some images; with the last of them, answer the request."""
        if len(rows) == len(self.images):
            self.rows = rows
        else:
            if self.rows is None:
                self.rows = np.empty((len(self.images), rows.shape[1]), rows.dtype)
            self.rows[part] = rows
        self.answered += len(rows)
        if self.answered == len(self.images) and not self.answer.done():
            self.answer.set_result(self.rows)


Batch = list[tuple[Pending, slice]]


class Batcher:
    """The queue of one worker's requests, and the inferences that answer them."""

    def __init__(self, *, lanes: int) -> None:
        """Run up to ``lanes`` long inferences at once."""
        # The number of requests in this worker, the one being answered included.
        self.active_requests: Callable[[], int] = lambda: 2
        self._waiting: dict[Model, deque[Pending]] = {}  # without empty ones, longest wait first
        self._lanes = lanes
        self.running = 0  # inferences in threads
        self._scheduled = False
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="inference")

    async def predict(
        self, model: Model, images: NDArray[np.uint8], *, deadline: float, spent: Spent
    ) -> Rows:
        """Return the rows that ``Model.infer`` returns for uint8 images (N, H, W, C).

        Raise DeadlineExceeded if not all are answered by ``deadline``, a ``time.monotonic()``; an
        inference that started in time is finished. Add the seconds to ``spent["queue"]`` and
        ``spent["inference"]``.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        if now >= deadline:
            raise DeadlineExceeded("The deadline passed before the inference started.")
        pending = Pending(images, loop.create_future(), spent, now)
        alone = not self._waiting and not self.running and self.active_requests() <= 1
        self._waiting.setdefault(model, deque()).append(pending)
        if alone:
            self._run_next(loop)  # no other request could join
        else:
            self._schedule(loop)
        if pending.answer.done():
            return pending.answer.result()
        timer = loop.call_later(deadline - now, _expire, pending.answer)
        try:
            return await pending.answer
        finally:
            timer.cancel()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run an inference after the loop has polled its sockets."""
        if self._waiting and not self._scheduled and self.running < self._lanes:
            self._scheduled = True
            loop.call_soon(self._run_next, loop)

    def _run_next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run one inference, of the model that waits longest."""
        self._scheduled = False
        if (chosen := self._next_batch()) is None:
            return
        model, batch = chosen
        images = np.concatenate([pending.images[part] for pending, part in batch])
        started = time.monotonic()
        for pending, _ in batch:
            pending.spent["queue"] += started - pending.since
        if not model.on_device and model.seconds * len(images) <= IN_LOOP:
            _answer(model, batch, started, lambda: model.infer(images))
        else:

            def finish(done: "asyncio.Future[Rows]") -> None:
                self.running -= 1
                _answer(model, batch, started, done.result)
                self._schedule(loop)

            self.running += 1
            running = loop.run_in_executor(self._threads, model.infer, images)
            running.add_done_callback(finish)
        self._schedule(loop)

    def _next_batch(self) -> tuple[Model, Batch] | None:
        """Return the model that waits longest and the images of its next inference."""
        while self._waiting:
            model = next(iter(self._waiting))
            queue = self._waiting.pop(model)
            batch: Batch = []
            room = batch_limit(model)
            while queue and room:
                pending = queue.popleft()
                if pending.answer.done():  # past its deadline, or its client disconnected
                    continue
                start = pending.taken
                pending.taken = min(start + room, len(pending.images))
                batch.append((pending, slice(start, pending.taken)))
                room -= pending.taken - start
                if pending.taken < len(pending.images):
                    queue.append(pending)  # behind the others: a large request delays none
            if queue:
                self._waiting[model] = queue  # behind the other models
            if batch:
                return model, batch
        return None


def _answer(model: Model, batch: Batch, started: float, infer: Callable[[], Rows]) -> None:
    """Answer the requests of a batch with their rows, or all with the exception of ``infer``."""
    try:
        rows = infer()
    except Exception as exc:  # noqa: BLE001 - whatever it is, each request gets it
        for pending, _ in batch:
            if not pending.answer.done():
                pending.answer.set_exception(exc)
        return
    ended, start = time.monotonic(), 0
    model.seconds = min(model.seconds, (ended - started) / len(rows))
    for pending, part in batch:
        stop = start + part.stop - part.start
        pending.spent["inference"] += ended - started
        pending.since = ended
        pending.resolve(part, rows[start:stop])
        start = stop


def _expire(answer: "asyncio.Future[Rows]") -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded("The request waited in the queue past its deadline."))


def batch_limit(model: Model) -> int:
    """Return the most images of one inference: a power of two."""
    fit = min(MAX_BATCH, max(1, int(IN_THREAD / model.seconds)))
    return 1 << (fit.bit_length() - 1)
