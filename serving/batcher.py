"""Who may run, and when: bounded admission, lanes for decoding and for inferences, a deadline.

One per worker. Knows models only by their ``predict``; knows nothing of images or of HTTP.
Requests are not joined yet: each runs its own images, a slice at a time, so that none holds the
lane for long. Decoding has a lane of its own, as a large image takes hundreds of megabytes.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded, Overloaded
from serving.model import Model

SLICE = 16  # images of one inference: bounds both the wait of others and onnxruntime's arena

Measure = Callable[[str, float], None]  # a stage of a request, and the seconds it took


class Lane:
    """Lets so many threads run at once, and the others in the order in which they came.

    A semaphore keeps no order: a thread that gives a place back and wants another gets it before
    the one that was woken has run.
    """

    def __init__(self, width: int) -> None:
        self._lock = threading.Lock()
        self._free = width
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self, stage: str, *, deadline: float, measure: Measure) -> Iterator[None]:
        """Hold a place; the seconds until it is had are those of "queue", then those of ``stage``.

        Raises:
            DeadlineExceeded: the place was not had before ``deadline``, a ``time.monotonic()``.
        """
        came = time.monotonic()
        try:
            self._enter(deadline)
        finally:
            began = time.monotonic()
            measure("queue", began - came)
        try:
            yield
        finally:
            self._leave()
            measure(stage, time.monotonic() - began)

    def _enter(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise DeadlineExceeded("The deadline passed before the request had its turn.")
        with self._lock:
            if self._free:
                self._free -= 1
                return
            handed = threading.Event()
            self._waiting.append(handed)
        if handed.wait(deadline - time.monotonic()):
            return
        with self._lock:
            if handed.is_set():  # at the last moment
                return
            self._waiting.remove(handed)
        raise DeadlineExceeded("The request waited in the queue past its deadline.")

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


class Batcher:
    """Admits requests up to a bound and lets few of them decode and infer at once."""

    def __init__(self, *, lanes: int, decodes: int, max_requests: int, max_images: int) -> None:
        """Let ``lanes`` inferences and ``decodes`` images, of any size, be worked on at once."""
        self.max_requests = max_requests
        self.max_images = max_images
        self.inferences = Lane(lanes)
        self.decodes = Lane(decodes)
        self._lock = threading.Lock()
        self._requests = 0
        self._images = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold one of the places for requests, from before the body is read to the answer.

        Raises:
            Overloaded: all places are taken. The bound lies below the number of threads, so that
                a probe always finds one.
        """
        with self._lock:
            if self._requests >= self.max_requests:
                raise Overloaded(
                    f"All {self.max_requests} places for requests are taken. Try again later."
                )
            self._requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1

    @contextmanager
    def images(self, count: int) -> Iterator[None]:
        """Hold places for ``count`` images, from before they are decoded to the answer.

        A request larger than the bound is admitted when no other image is held, or it never would.

        Raises:
            Overloaded: the queue is full.
        """
        with self._lock:
            if self._images and self._images + count > self.max_images:
                raise Overloaded(
                    f"The queue holds {self._images} of {self.max_images} images and cannot take"
                    f" {count} more. Try again later."
                )
            self._images += count
        try:
            yield
        finally:
            with self._lock:
                self._images -= count

    def predict(
        self,
        model: Model,
        batch: NDArray[np.uint8],
        *,
        deadline: float,
        measure: Measure,
    ) -> NDArray[np.float32]:
        """Probabilities (N, K) of uint8 images (N, H, W, C), when the lane is free.

        ``deadline`` is a ``time.monotonic()``; an inference that began in time is finished.
        ``measure`` gets the seconds spent in "queue" and in "inference", for each slice.

        Raises:
            DeadlineExceeded: a slice did not begin in time.
        """
        answers = []
        for start in range(0, len(batch), SLICE):
            with self.inferences.turn("inference", deadline=deadline, measure=measure):
                answers.append(model.predict(batch[start : start + SLICE]))
        return answers[0] if len(answers) == 1 else np.concatenate(answers)
