"""A normal day and a shifted one: their pictures, and predictions whose labels arrive later.

Knows the test split of CIFAR-10 and what a camera may do to it; knows nothing of alerts.
"""

import http.client
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bench.clients.labels import Known, Predicted, post_labels, predict
from bench.rig.service import Server
from training.data.datasets import load
from training.data.pixels import encode_png

MODEL = "cifar10"
IMAGES = 16  # of a request
NOISE, BLUR = 22.0, 1.0  # standard deviation, and radius in pixels
# The weight of each class on the shifted day; the others are absent.
SHIFTED = {"cat": 3, "dog": 3, "bird": 1, "deer": 1, "frog": 1, "horse": 1}


@dataclass(frozen=True)
class Day:
    """The pictures of a day, each with a weight."""

    pictures: Sequence[Known]
    weights: Sequence[float]


def days(data_dir: Path, seed: int) -> tuple[Day, Day]:
    """Return a day of the test split as it is, and a day of other classes, noisy or blurred."""
    data = load(MODEL, data_dir=data_dir)
    names = [data.labels[label] for label in data.test.labels]
    pairs, noise = list(zip(data.test.images, names, strict=True)), np.random.default_rng(seed)
    plain = [Known(encode_png(image), name) for image, name in pairs]
    worse = [
        Known(encode_png(noisy(image, noise) if place % 2 else blurred(image)), name)
        for place, (image, name) in enumerate(pairs)
        if name in SHIFTED
    ]
    return Day(plain, [1] * len(plain)), Day(worse, [SHIFTED[each.label] for each in worse])


def noisy(image: NDArray[np.uint8], noise: np.random.Generator) -> NDArray[np.uint8]:
    """Add the noise of a sensor in the dark."""
    grain = noise.normal(0.0, NOISE, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blur a picture as if out of focus."""
    soft = Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR))
    return np.asarray(soft, dtype=np.uint8)


@dataclass
class Traffic:
    """Predictions at a steady rate, and the true labels of a share of them after a delay."""

    server: Server
    rate: float  # images per second
    share: float
    delay: float  # seconds
    rng: random.Random
    images: int = 0
    labels: int = 0
    failed: list[str] = field(default_factory=list)
    _due: deque[tuple[float, list[Predicted]]] = field(default_factory=deque)

    def run(self, day: Day, seconds: float) -> None:
        """Send the traffic of a day."""
        due = time.monotonic()
        end = due + seconds
        while (now := time.monotonic()) < end:
            try:
                self._predict(day, now)
                self._label(now)
            except (OSError, http.client.HTTPException, RuntimeError) as exc:
                self.failed.append(str(exc))
            due = max(due + IMAGES / self.rate, now)  # a delay is not caught up
            time.sleep(max(0.0, due - time.monotonic()))

    def _predict(self, day: Day, now: float) -> None:
        chosen = self.rng.choices(day.pictures, day.weights, k=IMAGES)
        predicted = predict(self.server, MODEL, chosen)
        self.images += len(predicted)
        sample = [each for each in predicted if self.rng.random() < self.share]
        if sample:
            self._due.append((now + self.delay, sample))

    def _label(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, predicted = self._due.popleft()
            recorded = post_labels(self.server, predicted)
            if recorded != len(predicted):
                self.failed.append(f"{recorded} of {len(predicted)} labels were recorded")
            self.labels += len(predicted)
