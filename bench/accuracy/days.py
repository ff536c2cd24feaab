"""A normal day and a shifted one: their pictures, and predictions whose labels come a while later.

Knows the test split of CIFAR-10 and what a camera may do to it; knows nothing of alerts.
"""

import http.client
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bench.clients.labels import Known, Predicted, all_labels, predict
from bench.rig.service import Server
from training.data.datasets import load
from training.data.pixels import encode_png

MODEL = "cifar10"
IMAGES = 16  # of a request
NOISE, BLUR = 22.0, 1.0  # standard deviation, and radius in pixels
# How often a class comes on the shifted day; the others do not.
SHIFTED = {"cat": 3, "dog": 3, "bird": 1, "deer": 1, "frog": 1, "horse": 1}


@dataclass(frozen=True)
class Day:
    """What comes on it: pictures, each with a weight."""

    name: str
    pictures: Sequence[Known]
    weights: Sequence[float]


def days(data_dir: Path, seed: int) -> tuple[Day, Day]:
    """The test split as it is, and other classes of it, noisy or blurred."""
    data = load(MODEL, data_dir=data_dir)
    names = [data.labels[label] for label in data.test.labels]
    as_they_are = [
        Known(encode_png(image), name) for image, name in zip(data.test.images, names, strict=True)
    ]
    noise = np.random.default_rng(seed)
    worse = [
        Known(encode_png(noisy(image, noise) if place % 2 else blurred(image)), name)
        for place, (image, name) in enumerate(zip(data.test.images, names, strict=True))
        if name in SHIFTED
    ]
    return (
        Day("normal", as_they_are, [1] * len(as_they_are)),
        Day("shifted", worse, [SHIFTED[each.label] for each in worse]),
    )


def noisy(image: NDArray[np.uint8], noise: np.random.Generator) -> NDArray[np.uint8]:
    """With the noise of a sensor in the dark."""
    grain = noise.normal(0.0, NOISE, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Out of focus."""
    soft = Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR))
    return np.asarray(soft, dtype=np.uint8)


class Traffic:
    """Predictions at a steady rate, and the true labels of a share of them after a while."""

    def __init__(
        self, server: Server, *, rate: float, share: float, delay: float, rng: random.Random
    ) -> None:
        self.images = self.labels = 0
        self.failed: list[str] = []
        self._server, self._rate, self._share, self._delay = server, rate, share, delay
        self._rng = rng
        self._due: deque[tuple[float, list[Predicted]]] = deque()

    def live(self, day: Day, seconds: float, look: Callable[[], None]) -> None:
        """For so long; ``look`` is called between two requests."""
        due = time.monotonic()
        end = due + seconds
        while (now := time.monotonic()) < end:
            self._predict(day, now)
            self._label(now)
            look()
            due = max(due + IMAGES / self._rate, now)  # what was late is not caught up with
            time.sleep(max(0.0, due - time.monotonic()))

    def _predict(self, day: Day, now: float) -> None:
        chosen = self._rng.choices(day.pictures, day.weights, k=IMAGES)
        try:
            predicted = predict(self._server, MODEL, chosen)
        except (OSError, http.client.HTTPException, RuntimeError) as exc:
            self.failed.append(str(exc))
            return
        self.images += len(predicted)
        labelled = [each for each in predicted if self._rng.random() < self._share]
        if labelled:
            self._due.append((now + self._delay, labelled))

    def _label(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, predicted = self._due.popleft()
            call = all_labels(predicted)
            status, body = self._server.answer(call.method, call.path, call.body, call.content_type)
            if status != 200 or body.count(b'"recorded"') != len(predicted):
                self.failed.append(f"feedback was answered {status}: {body[:200]!r}")
            self.labels += len(predicted)
