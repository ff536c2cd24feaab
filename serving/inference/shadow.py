"""Let another version predict what was answered already, and count where it would have answered
otherwise.

In the worker's event loop; what it runs, one inference after another, runs in a thread, and begins
only when no request is there. What waits is bounded; what comes beyond is dropped and counted.
Nothing that goes wrong here is seen by a request.
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
from serving.inference.batcher import largest
from serving.inference.images.pixels import PixelSpec
from serving.inference.models.model import Model
from serving.inference.models.repository import Repository
from serving.monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

WAITING = 256  # images
BYTES = 16 * 1024 * 1024  # of them, as pixels or as files

Picture = NDArray[np.uint8] | bytes


@dataclass(frozen=True)
class Answered:
    """Images of one inference and the labels that they got. It names versions and holds none, or
    one that is retired could not be freed."""

    name: str
    version: int
    shadow: int
    labels: Sequence[str]
    pictures: Sequence[Picture]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(len(each) if isinstance(each, bytes) else each.nbytes for each in self.pictures)


class Shadow:
    """The shadows of one worker's answers."""

    def __init__(
        self,
        serves: Callable[[], Repository],
        admission: Admission,
        metrics: Metrics,
        read: Callable[[bytes, PixelSpec], NDArray[np.uint8]],
    ) -> None:
        """``read`` decodes a file for a model, in the thread that calls it."""
        self._serves, self._admission, self._metrics = serves, admission, metrics
        self._read = read
        self._waiting: deque[Answered] = deque()
        self._images = self._bytes = 0
        self._running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        admission.idled = self._idled

    def offer(
        self,
        model: Model,
        shadow: Model,
        rows: Sequence[Sequence[float]],
        *,
        pixels: Sequence[NDArray[np.uint8]],
        files: Sequence[bytes],
    ) -> None:
        """The images of a request, and what ``model`` said of them. Where ``shadow`` takes other
        pixels, they are read again from the files."""
        labels = [model.labels[max(range(len(row)), key=row.__getitem__)] for row in rows]
        # A view into a body would keep all of it.
        pictures: Sequence[Picture] = files
        if shadow.spec == model.spec:
            pictures = [each.copy() for each in pixels]
        step = largest(shadow)
        for start in range(0, len(labels), step):
            part = slice(start, start + step)
            self._put(
                Answered(
                    model.name, model.version, shadow.version, labels[part], list(pictures[part])
                )
            )

    def _put(self, answered: Answered) -> None:
        count, size = len(answered.labels), answered.size
        if self._images + count > WAITING or self._bytes + size > BYTES:
            self._count(answered, "dropped", count)
            return
        self._waiting.append(answered)
        self._images += count
        self._bytes += size

    def _idled(self) -> None:
        """No request is there any more; the answer of the last is written in this very step."""
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """One inference."""
        if self._running or not self._waiting or not self._admission.idle:
            return
        answered = self._waiting.popleft()
        self._images -= len(answered.labels)
        self._bytes -= answered.size
        self._running = True
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._told, answered)
        running.add_done_callback(partial(self._ended, answered))

    def _told(self, answered: Answered) -> list[str] | None:
        """The labels that the shadow gives; None where it has been retired."""
        try:
            model = self._serves().get(answered.name, answered.shadow)
        except (UnknownModel, UnknownVersion):
            return None
        pixels = [
            self._read(each, model.spec) if isinstance(each, bytes) else each
            for each in answered.pictures
        ]
        return [model.labels[best] for best in model.predict(np.stack(pixels)).argmax(axis=1)]

    def _ended(self, answered: Answered, done: "asyncio.Future[list[str] | None]") -> None:
        self._running = False
        self._turn()
        count = len(answered.labels)
        if done.cancelled():
            return
        if (exc := done.exception()) is not None:
            logger.warning("A shadow failed.", exc_info=exc, extra={"model": answered.name})
            self._count(answered, "failed", count)
        elif (labels := done.result()) is None:
            self._count(answered, "dropped", count)
        else:
            agreed = sum(map(str.__eq__, labels, answered.labels))
            self._count(answered, "agreed", agreed)
            self._count(answered, "disagreed", count - agreed)

    def _count(self, answered: Answered, result: str, count: int) -> None:
        self._metrics.shadow(
            answered.name, answered.version, answered.shadow, result=result, images=count
        )
