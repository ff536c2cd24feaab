"""Augmentation for pictures taken in bad conditions: filters, noise with structure, tone curves.

After PRIME (Modas et al., *PRIME: A few primitives can boost robustness to common corruptions*,
2022) and TrivialAugment (Müller and Hutter, 2021), without what the benchmark of corruptions
scores: no independent noise, no blur kernel, no brightness, contrast or sharpness. The layers map
pixels 0-255 to numbers that need clipping. Knows ``keras.ops`` only; knows nothing of recipes.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from training.modelling.augment import Augmentation, mix


class RandomFilter(Augmentation):
    """A random filter along the rows and another along the columns: the identity plus ``taps``
    weights of zero sum, whose deviation is uniform up to ``deviation``."""

    def __init__(self, deviation: float = 0.4, *, taps: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deviation, self.taps = deviation, taps

    def _augment(self, images: Any) -> Any:
        count, height, width, _ = ops.shape(images)
        return mix(images, self._weights(count, height), self._weights(count, width))

    def _weights(self, count: Any, size: Any) -> Any:
        """Return a banded matrix for each image, ``(N, size, size)``; borders repeat."""
        weights = self._normal((count, self.taps)) * self._uniform((count, 1), 0, self.deviation)
        weights -= ops.mean(weights, axis=1, keepdims=True)
        band = ops.arange(self.taps, dtype="int32") - self.taps // 2
        weights += ops.cast(band == 0, "float32")
        places = ops.clip(ops.arange(size, dtype="int32")[:, None] + band, 0, size - 1)
        return ops.einsum("nt,stq->nsq", weights, ops.one_hot(places, size, dtype="float32"))


class StructuredNoise(Augmentation):
    """Blotches and streaks: white noise, interpolated from a coarser grid along the rows, the
    columns or both, and never independent from pixel to pixel.

    The spacing of the grid along each axis is one of 1, 2, 4 and 8 pixels, not 1 along both. The
    range of the noise is uniform up to ``limit``; half of the images get the same for all channels.
    """

    def __init__(self, limit: float = 60, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit = limit

    def _augment(self, images: Any) -> Any:
        count, height, width, channels = ops.shape(images)
        kind = keras.random.randint((count,), 1, 16, seed=self.seed_generator)  # 0: 1 along both
        noise = self._uniform((count, height, width, channels), -1, 1)
        grey = self._uniform((count, 1, 1, 1)) < 0.5
        noise = ops.where(grey, noise[..., :1], noise)
        rows = ops.take(_interpolation(height), kind // 4, axis=0)
        columns = ops.take(_interpolation(width), kind % 4, axis=0)
        return images + mix(noise, rows, columns) * self._uniform((count, 1, 1, 1), 0, self.limit)


class RandomTone(Augmentation):
    """A power of the brightness, 0-1 to 0-1: its logarithm is normal with a deviation of
    ``deviation``, and with half of that again for each channel."""

    def __init__(self, deviation: float = 0.35, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deviation = deviation

    def _augment(self, images: Any) -> Any:
        count, _, _, channels = ops.shape(images)
        exponent = self._normal((count, 1, 1, 1)) + 0.5 * self._normal((count, 1, 1, channels))
        shares = ops.clip(images / 255, 1e-4, 1.0)
        return 255 * ops.exp(ops.exp(self.deviation * exponent) * ops.log(shares))


class Solarize(Augmentation):
    """The negative of all pixels above a threshold, uniform over the range."""

    def _augment(self, images: Any) -> Any:
        threshold = self._uniform((ops.shape(images)[0], 1, 1, 1), 0, 256)
        return ops.where(images < threshold, images, 255 - images)


class Negative(Augmentation):
    """The negative of random blotches, of 4 or 8 pixels and more, with soft edges."""

    def _augment(self, images: Any) -> Any:
        count, height, width, _ = ops.shape(images)
        kind = keras.random.randint((2, count), 2, 4, seed=self.seed_generator)
        rows = ops.take(_interpolation(height), kind[0], axis=0)
        columns = ops.take(_interpolation(width), kind[1], axis=0)
        field = mix(self._uniform((count, height, width, 1), -1, 1), rows, columns)
        share = ops.clip(4 * (field + self._uniform((count, 1, 1, 1), -0.5, 0.5)), 0, 1)
        return images + share * (255 - 2 * images)


class Posterize(Augmentation):
    """Fewer levels: 2 to 16 of them."""

    def _augment(self, images: Any) -> Any:
        step = 256 / 2 ** self._uniform((ops.shape(images)[0], 1, 1, 1), 1, 4)
        return ops.floor(images / step) * step + step / 2


def _interpolation(size: int) -> Any:
    """Return the matrices ``(4, size, size)`` that interpolate a grid of 1, 2, 4 or 8 pixels."""
    place = np.arange(size)[:, None]
    grids = [np.maximum(1 - np.abs(place / step - np.arange(size)), 0) for step in (1, 2, 4, 8)]
    return ops.convert_to_tensor(np.stack(grids), "float32")
