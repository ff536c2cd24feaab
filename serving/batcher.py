"""Who may run, and when: bounded admission, a lane for inferences, a deadline.

One per worker. Knows models only by their ``predict``; knows nothing of images or of HTTP.
Requests are not joined yet: each runs its own images, a slice at a time, so that none holds the
lane for long.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded, Overloaded
from serving.model import Model

SLICE = 16  # images of one inference: bounds both the wait of others and onnxruntime's arena


class Batcher:
    """Admits requests up to a bound and lets at most ``lanes`` inferences run at once."""

    def __init__(self, *, lanes: int, max_requests: int, max_images: int) -> None:
        self.max_requests = max_requests
        self.max_images = max_images
        self._lane = threading.BoundedSemaphore(lanes)
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
        measure: Callable[[str, float], None],
    ) -> NDArray[np.float32]:
        """Probabilities (N, K) of uint8 images (N, H, W, C), when the lane is free.

        ``deadline`` is a ``time.monotonic()``; an inference that began in time is finished.
        ``measure`` gets the seconds spent in "queue" and in "inference".

        Raises:
            DeadlineExceeded: the lane was not free in time.
        """
        queued = running = 0.0
        answers = []
        for start in range(0, len(batch), SLICE):
            came = time.monotonic()
            if not self._lane.acquire(timeout=max(0.0, deadline - came)):
                raise DeadlineExceeded("The request waited in the queue past its deadline.")
            began = time.monotonic()
            try:
                answers.append(model.predict(batch[start : start + SLICE]))
            finally:
                self._lane.release()
            queued += began - came
            running += time.monotonic() - began
        measure("queue", queued)
        measure("inference", running)
        return answers[0] if len(answers) == 1 else np.concatenate(answers)
