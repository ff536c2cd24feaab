"""Golden replay: each golden image of each served version is predicted anew once a minute, by the
way that requests take, and what comes of it is counted.

Knows the repository's folders, the decoder and the batcher; knows nothing of HTTP. It finds what no
load balancer sees: a replica that answers quickly and wrongly.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded, UnknownModel, UnknownVersion
from serving.inference.batcher import Batcher
from serving.inference.images.pixels import PixelSpec
from serving.inference.models.model import Model
from serving.inference.models.repository import Repository
from serving.monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

EVERY = 60.0  # seconds in which each image has its turn
PATIENCE = 30.0  # seconds for which an image waits behind requests


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
        """``read`` decodes a file for a model, in the thread that calls it."""
        self._folder, self._serves, self._read = folder, serves, read
        self._batcher, self._metrics = batcher, metrics

    async def watch(self) -> None:
        """Replay for ever, an image at a time, spread over the minute."""
        while True:
            began = time.monotonic()
            # Names: a version that is retired meanwhile is freed.
            images = [
                (model.name, model.version, path)
                for model in self._serves()
                for path in self._paths(model)
            ]
            for done, (name, version, path) in enumerate(images, 1):
                await asyncio.sleep(began + done * EVERY / len(images) - time.monotonic())
                with suppress(UnknownModel, UnknownVersion):
                    await self.replay(self._serves().get(name, version), path)
            await asyncio.sleep(max(0.0, began + EVERY - time.monotonic()))

    async def replay(self, model: Model, path: Path) -> None:
        """Predict one image and count what came of it; one for which there was no time is not."""
        try:
            pixels = await asyncio.to_thread(self._pixels, path, model.spec)
            rows = await self._batcher.predict(
                model, pixels[None], deadline=time.monotonic() + PATIENCE, measure=_unmeasured
            )
            right = model.labels[int(rows[0].argmax())] == path.stem.rpartition("-")[0]
            result = "right" if right else "wrong"
        except (DeadlineExceeded, FileNotFoundError):  # busy; or retired since
            return
        except Exception:
            logger.exception("A golden image failed.", extra={"path": str(path)})
            result = "failed"
        self._metrics.golden(model.name, model.version, result=result)

    def _paths(self, model: Model) -> list[Path]:
        return sorted((self._folder / model.name / str(model.version) / "golden").glob("*.png"))

    def _pixels(self, path: Path, spec: PixelSpec) -> NDArray[np.uint8]:
        return self._read(path.read_bytes(), spec)


def _unmeasured(_: str, __: float) -> None:
    """A replay is no request."""
