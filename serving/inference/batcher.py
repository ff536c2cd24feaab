"""Who runs, and when: images that wait are joined into one inference, and wait up to a deadline.

One per worker, in its event loop. Knows models only by what they predict and how long it takes;
knows nothing of images or of HTTP.

An inference that is short runs in the loop itself: handing it to a thread would cost more than it
saves, and requests that came meanwhile join the next one. A long one runs in a thread, and so does
one on a device: while that computes, the loop can decode.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded
from serving.inference.images.decoder import Measure
from serving.inference.models.model import Model

SHORT = 0.02  # seconds for which an inference may hold the loop; probes wait so long
LONG = 0.04  # seconds of an inference of several images in a thread; other requests wait so long
LARGEST = 16  # images of one inference: bounds onnxruntime's arena


class Waiting:
    """The images of one request, of which some may be taken and some answered."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        answer: "asyncio.Future[NDArray[np.float32]]",
        measure: Measure,
        since: float,
    ) -> None:
        self.images, self.answer, self.measure, self.since = images, answer, measure, since
        self.taken = self._answered = 0
        self._rows: NDArray[np.float32] | None = None

    @property
    def left(self) -> int:
        """Images that were not taken yet."""
        return len(self.images) - self.taken

    def take(self, most: int) -> slice:
        """Up to so many of them, from now on taken."""
        part = slice(self.taken, min(self.taken + most, len(self.images)))
        self.taken = part.stop
        return part

    def give(self, part: slice, rows: NDArray[np.float32]) -> None:
        """Answer images that were taken; with the last of them, the request."""
        if self._rows is None:
            whole = len(rows) == len(self.images)
            self._rows = rows if whole else np.empty((len(self.images), rows.shape[1]), rows.dtype)
        if self._rows is not rows:
            self._rows[part] = rows
        self._answered += len(rows)
        if self._answered == len(self.images) and not self.answer.done():
            self.answer.set_result(self._rows)


Parts = list[tuple[Waiting, slice]]


class Batcher:
    """Runs the images of the requests that wait together."""

    def __init__(self, *, lanes: int) -> None:
        """Let ``lanes`` long inferences run at once."""
        # How many requests are there, this one included, also those that were not begun.
        self.coming: Callable[[], int] = lambda: 2
        self._waiting: dict[Model, deque[Waiting]] = {}  # those that have any, longest wait first
        self._lanes = lanes
        self.running = 0  # inferences in threads
        self._turn_comes = False
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="inference")

    async def predict(
        self, model: Model, images: NDArray[np.uint8], *, deadline: float, measure: Measure
    ) -> NDArray[np.float32]:
        """Probabilities (N, K) of uint8 images (N, H, W, C), one inference or several.

        ``deadline`` is a ``time.monotonic()``; an inference that began in time is finished.
        ``measure`` gets the seconds spent in "queue" and in "inference", for each inference.

        Raises:
            DeadlineExceeded: they were not all answered in time.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        if now >= deadline:
            raise DeadlineExceeded("The deadline passed before the request had its turn.")
        waiting = Waiting(images, loop.create_future(), measure, now)
        alone = not self._waiting and not self.running and self.coming() <= 1
        self._waiting.setdefault(model, deque()).append(waiting)
        if alone:
            self._turn(loop)  # nobody could join it
        else:
            self._come_again(loop)
        if waiting.answer.done():
            return waiting.answer.result()
        timer = loop.call_later(deadline - now, _expire, waiting.answer)
        try:
            return await waiting.answer
        finally:
            timer.cancel()

    def _come_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a turn when the loop has looked at its sockets."""
        if self._waiting and not self._turn_comes and self.running < self._lanes:
            self._turn_comes = True
            loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """One inference, of the model whose turn it is."""
        self._turn_comes = False
        if (chosen := self._next()) is None:
            return
        model, parts = chosen
        batch = np.concatenate([waiting.images[part] for waiting, part in parts])
        began = time.monotonic()
        for waiting, _ in parts:
            waiting.measure("queue", began - waiting.since)
        if not model.on_device and model.seconds * len(batch) <= SHORT:
            _answer(model, parts, began, lambda: model.predict(batch))
        else:
            self.running += 1
            running = loop.run_in_executor(self._threads, model.predict, batch)
            running.add_done_callback(partial(self._ended, loop, model, parts, began))
        self._come_again(loop)

    def _next(self) -> tuple[Model, Parts] | None:
        """The model that waits longest, and the images of its next inference."""
        while self._waiting:
            model = next(iter(self._waiting))
            queue = self._waiting.pop(model)
            parts: Parts = []
            room = largest(model)
            while queue and room:
                waiting = queue.popleft()
                if waiting.answer.done():  # past its deadline, or its client has left
                    continue
                part = waiting.take(room)
                parts.append((waiting, part))
                room -= part.stop - part.start
                if waiting.left:
                    queue.append(waiting)  # behind the others: a large request holds up none
            if queue:
                self._waiting[model] = queue  # behind the other models
            if parts:
                return model, parts
        return None

    def _ended(
        self,
        loop: asyncio.AbstractEventLoop,
        model: Model,
        parts: Parts,
        began: float,
        done: "asyncio.Future[NDArray[np.float32]]",
    ) -> None:
        self.running -= 1
        _answer(model, parts, began, done.result)
        self._come_again(loop)


def _answer(
    model: Model, parts: Parts, began: float, rows: Callable[[], NDArray[np.float32]]
) -> None:
    try:
        found = rows()
    except Exception as exc:  # noqa: BLE001 - told to each that waits, whatever it is
        for waiting, _ in parts:
            if not waiting.answer.done():
                waiting.answer.set_exception(exc)
        return
    ended, start = time.monotonic(), 0
    if ended - began < model.seconds * len(found):
        model.seconds = (ended - began) / len(found)
    for waiting, part in parts:
        stop = start + part.stop - part.start
        waiting.measure("inference", ended - began)
        waiting.since = ended
        waiting.give(part, found[start:stop])
        start = stop


def _expire(answer: "asyncio.Future[NDArray[np.float32]]") -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded("The request waited in the queue past its deadline."))


def largest(model: Model) -> int:
    """How many images one inference takes: a power of two."""
    fit = min(LARGEST, max(1, int(LONG / model.seconds)))
    return 1 << (fit.bit_length() - 1)
