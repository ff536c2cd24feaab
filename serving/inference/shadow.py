"""Shadow traffic: a second version predicts what was answered; agreement is counted.

The queue of a worker is bounded: images beyond it are dropped and counted. Inferences run one
after another in a thread, and start only while no request is active. No failure reaches a request.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.errors import UnknownModel, UnknownVersion
from serving.inference.admission import Admission
from serving.inference.batcher import batch_limit
from serving.inference.images.pixels import PixelSpec
from serving.inference.models.model import Model
from serving.inference.models.repository import Repository
from serving.monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

WAITING = 256  # images
BYTES = 16 * 1024 * 1024  # of these images, as pixels or as files


@dataclass(frozen=True)
class Answered:
    """Images of one inference and the labels of their answers. Names its versions instead of
    holding them, so that a retired one can be freed."""

    name: str
    version: int
    shadow: int
    labels: Sequence[str]
    images: Sequence[NDArray[np.uint8] | bytes]

    @property
    def size(self) -> int:
        """The number of bytes of the images."""
        return sum(len(each) if isinstance(each, bytes) else each.nbytes for each in self.images)


class Shadow:
    """The shadow traffic of one worker."""

    def __init__(
        self,
        serves: Callable[[], Repository],
        admission: Admission,
        metrics: Metrics,
        read: Callable[[bytes, PixelSpec], NDArray[np.uint8]],
    ) -> None:
        """``read`` decodes a file for a model in the calling thread."""
        self._serves, self._admission, self._metrics = serves, admission, metrics
        self._read = read
        self._waiting: deque[Answered] = deque()
        self._images = self._bytes = 0
        self._running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def offer(
        self,
        model: Model,
        shadow: Model,
        labels: Sequence[str],
        *,
        pixels: Sequence[NDArray[np.uint8]],
        files: Sequence[bytes],
    ) -> None:
        """Queue the images of a request, with the labels that ``model`` answered: the pixels, or
        the files if ``shadow`` expects other pixels."""
        images: Sequence[NDArray[np.uint8] | bytes] = files
        if shadow.spec == model.spec:
            images = [each.copy() for each in pixels]  # a view would keep the whole body
        step = batch_limit(shadow)
        for start in range(0, len(labels), step):
            part = slice(start, start + step)
            versions = model.name, model.version, shadow.version
            answered = Answered(*versions, labels[part], images[part])
            count, size = len(answered.labels), answered.size
            if self._images + count > WAITING or self._bytes + size > BYTES:
                self._count(answered, dropped=count)
                continue
            self._waiting.append(answered)
            self._admission.on_idle = self._schedule
            self._images += count
            self._bytes += size

    def _schedule(self) -> None:
        # After this iteration of the loop, which writes the answer of the last request.
        asyncio.get_running_loop().call_soon(self._run_next)

    def _run_next(self) -> None:
        if self._running or not self._waiting or not self._admission.idle:
            return
        answered = self._waiting.popleft()
        if not self._waiting:
            self._admission.on_idle = None
        self._images -= len(answered.labels)
        self._bytes -= answered.size
        self._running = True
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._predict, answered)
        running.add_done_callback(partial(self._finish, answered))

    def _predict(self, answered: Answered) -> list[str] | None:
        """Return the shadow's labels, or None if the shadow is retired."""
        try:
            model = self._serves().get(answered.name, answered.shadow)
        except (UnknownModel, UnknownVersion):
            return None
        pixels = [
            self._read(each, model.spec) if isinstance(each, bytes) else each
            for each in answered.images
        ]
        return [model.labels[best] for best in model.predict(np.stack(pixels)).argmax(axis=1)]

    def _finish(self, answered: Answered, done: "asyncio.Future[list[str] | None]") -> None:
        self._running = False
        self._run_next()
        count = len(answered.labels)
        if (exc := done.exception()) is not None:
            logger.warning("A shadow failed.", exc_info=exc, extra={"model": answered.name})
            self._count(answered, failed=count)
        elif (labels := done.result()) is None:
            self._count(answered, dropped=count)
        else:
            agreed = sum(map(str.__eq__, labels, answered.labels))
            self._count(answered, agreed=agreed, disagreed=count - agreed)

    def _count(self, answered: Answered, **results: int) -> None:
        versions = answered.name, answered.version, answered.shadow
        for result, images in results.items():
            self._metrics.shadow(*versions, result=result, images=images)
