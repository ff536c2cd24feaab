"""Golden replay: predict every golden image of every served version once a minute, as requests do.

Finds what no load balancer sees: a replica that answers quickly and wrongly.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded, UnknownModel, UnknownVersion
from serving.inference.batcher import Batcher
from serving.inference.images.pixels import PixelSpec
from serving.inference.models.model import Model
from serving.inference.models.published import golden_images, golden_label
from serving.inference.models.repository import Repository
from serving.monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

PERIOD = 60.0  # seconds for one round of all images
TIMEOUT = 30.0  # seconds for which an image waits behind requests


class Golden:
    """The replay of one replica."""

    def __init__(
        self,
        folder: Path,
        serves: Callable[[], Repository],
        read: Callable[[bytes, PixelSpec], NDArray[np.uint8]],
        batcher: Batcher,
        metrics: Metrics,
    ) -> None:
        """``read`` decodes a file for a model in the calling thread."""
        self._folder, self._serves, self._read = folder, serves, read
        self._batcher, self._metrics = batcher, metrics

    async def watch(self) -> None:
        """Replay for ever, one image at a time, spread over the period."""
        while True:
            started = time.monotonic()
            # Names instead of models: a version that is retired meanwhile is freed.
            images = [
                (model.name, model.version, path)
                for model in self._serves()
                for path in golden_images(self._folder / model.name / str(model.version))
            ]
            for done, (name, version, path) in enumerate(images, 1):
                await asyncio.sleep(started + done * PERIOD / len(images) - time.monotonic())
                with suppress(UnknownModel, UnknownVersion):
                    await self.replay(self._serves().get(name, version), path)
            await asyncio.sleep(max(0.0, started + PERIOD - time.monotonic()))

    async def replay(self, model: Model, path: Path) -> None:
        """Predict one image and count the result, unless the worker is too busy."""
        try:
            pixels = await asyncio.to_thread(lambda: self._read(path.read_bytes(), model.spec))
            rows = await self._batcher.predict(
                model,
                pixels[None],
                deadline=time.monotonic() + TIMEOUT,
                spent=defaultdict(float),  # a replay is not a request
            )
            best = int(rows[0, : len(model.labels)].argmax())
            right = model.labels[best] == golden_label(path)
            result = "right" if right else "wrong"
        except (DeadlineExceeded, FileNotFoundError):  # busy, or retired meanwhile
            return
        except Exception:
            logger.exception("A golden image failed.", extra={"path": str(path)})
            result = "failed"
        self._metrics.golden(model.name, model.version, result=result)
