"""Augmentation as Keras layers: pixels 0-255 in, pixels 0-255 out, on the device, outside the
exported graph.

Knows ``keras.ops`` only, so that it runs on every backend; knows nothing of recipes.
"""

import math
from abc import abstractmethod
from typing import Any

import keras
from keras import ops


class Augmentation(keras.layers.Layer):  # type: ignore[misc]
    """A layer that changes a ``share`` of the float images ``(N, H, W, C)``, in training only."""

    def __init__(self, *, share: float = 1.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share
        self.seed_generator = keras.random.SeedGenerator(seed)

    @abstractmethod
    def _augment(self, images: Any) -> Any: ...

    def call(self, images: Any, training: bool = False) -> Any:
        """Change the images in training; return them as they are otherwise."""
        if not training:
            return images
        changed = self._augment(images)
        if self.share == 1:
            return changed
        chosen = self._uniform((ops.shape(images)[0], 1, 1, 1)) < self.share
        return ops.where(chosen, changed, images)

    def _uniform(self, shape: Any, low: float = 0.0, high: float = 1.0) -> Any:
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.seed_generator)

    def _normal(self, shape: Any) -> Any:
        return keras.random.normal(shape, dtype="float32", seed=self.seed_generator)


class RandomResizedCrop(Augmentation):
    """A random part of each image, scaled to ``side`` pixels or back to the full size.

    The part covers ``area`` (low, high) of the image, uniformly; its aspect ratio is log-uniform
    in ``ratio``. As in Szegedy et al., *Going deeper with convolutions*, 2015. An area above 1
    shows the image on a larger page of a random grey. Linear interpolation is one matrix product
    per axis.
    """

    def __init__(
        self,
        side: int | None = None,
        area: tuple[float, float] = (0.35, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.side, self.area, self.ratio = side, area, ratio

    def _augment(self, images: Any) -> Any:
        count, height, width, _ = ops.shape(images)
        share = ops.sqrt(self._uniform((count,), *self.area))
        skew = ops.exp(self._uniform((count,), *map(math.log, self.ratio)) / 2)
        largest = max(1.0, math.sqrt(self.area[1]))
        rows = self._weights(ops.minimum(share / skew, largest), height)
        columns = self._weights(ops.minimum(share * skew, largest), width)
        inside = (
            ops.sum(rows, axis=2)[:, :, None, None] * ops.sum(columns, axis=2)[:, None, :, None]
        )
        return mix(images, rows, columns) + (1 - inside) * self._uniform((count, 1, 1, 1), 0, 255)

    def _weights(self, share: Any, size: Any) -> Any:
        """Return the weight of each of ``size`` pixels in each new pixel: ``(N, side, size)``."""
        steps = ops.linspace(0.0, 1.0, self.side or size)
        start = self._uniform(ops.shape(share)) * (1 - share)
        place = (start[:, None] + share[:, None] * steps) * (size - 1)
        return ops.relu(1 - ops.abs(place[:, :, None] - ops.arange(size, dtype="float32")))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape, with unknown sides if the layer changes the size (in training only)."""
        return shape if self.side is None else (shape[0], None, None, shape[3])


class RandomShift(Augmentation):
    """A shift by whole pixels, up to ``pixels`` in each direction; the border is reflected."""

    def __init__(self, pixels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pixels = pixels

    def _augment(self, images: Any) -> Any:
        count, height, width, _ = ops.shape(images)
        return mix(images, self._weights(count, height), self._weights(count, width))

    def _weights(self, count: Any, size: Any) -> Any:
        far = self.pixels
        shift = keras.random.randint((count, 1), -far, far + 1, seed=self.seed_generator)
        place = ops.abs(ops.arange(size, dtype="int32") + shift)
        return ops.one_hot(size - 1 - ops.abs(size - 1 - place), size, dtype="float32")


class Cutout(Augmentation):
    """One grey square in each image, ``side`` pixels wide and anywhere within it (DeVries and
    Taylor, *Improved regularization of convolutional neural networks with cutout*, 2017)."""

    def __init__(self, side: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side = side

    def _augment(self, images: Any) -> Any:
        count, height, width, _ = ops.shape(images)
        rows, columns = self._inside(count, height), self._inside(count, width)
        square = ops.logical_and(rows[:, :, None, None], columns[:, None, :, None])
        return ops.where(square, 128.0, images)

    def _inside(self, count: Any, size: Any) -> Any:
        last = size - self.side + 1
        start = keras.random.randint((count, 1), 0, last, seed=self.seed_generator)
        place = ops.arange(size, dtype="int32") - start
        return ops.logical_and(place >= 0, place < self.side)


class AlternatingFlip(keras.layers.Layer):  # type: ignore[misc]
    """A mirror for each image in every other epoch, half of the images in the even ones: two
    epochs in a row show both sides of each (Jordan, *94 % on CIFAR-10 in 3.29 seconds*, 2024).

    The half that an image belongs to follows from its pixels, so this layer must be the first.
    Images are float ``(N, H, W, C)`` of whole numbers. The training loop sets ``epoch``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epoch = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="epoch"
        )

    def call(self, images: Any, training: bool = False) -> Any:
        """Mirror in training; return the images as they are otherwise."""
        if not training:
            return images
        total = ops.sum(ops.cast(images, "int32"), axis=(1, 2, 3), keepdims=True)
        return ops.where((total + self.epoch) % 2 == 1, ops.flip(images, axis=2), images)


class RandomAffine(Augmentation):
    """A rotation, shear, scale and shift, all in one interpolation; the border is black, or as
    ``border`` says (``reflect``).

    Each is uniform up to its limit, in both directions: ``degrees``, ``shear`` (the tangent),
    ``scale`` (0.1: from 0.9 to 1.1, each axis by itself) and ``shift`` in pixels.
    """

    def __init__(
        self,
        *,
        degrees: float,
        shear: float,
        scale: float,
        shift: float,
        border: str = "constant",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.border = border
        self.limits = math.radians(degrees), shear, scale, scale, shift, shift

    def _augment(self, images: Any) -> Any:
        count, height, width, _ = ops.shape(images)
        draw = keras.random.uniform((6, count), -1.0, 1.0, seed=self.seed_generator)
        limits = ops.reshape(ops.convert_to_tensor(self.limits, "float32"), (6, 1))
        angle, shear, wider, taller, right, down = ops.unstack(draw * limits)
        # output (x, y) reads input (a x + b y + right, c x + d y + down), both from the middle
        a, b = ops.cos(angle) / (1 + wider), (shear - ops.sin(angle)) / (1 + taller)
        c, d = ops.sin(angle) / (1 + wider), ops.cos(angle) / (1 + taller)
        x, y = (width - 1) / 2, (height - 1) / 2
        zero = ops.zeros((count,))
        transform = [a, b, x - a * x - b * y + right, c, d, y - c * x - d * y + down, zero, zero]
        transforms = ops.stack(transform, axis=1)
        return ops.image.affine_transform(images, transforms, fill_mode=self.border)


def mix(images: Any, rows: Any, columns: Any) -> Any:
    """Return images whose rows and columns are weighted sums of the old: float ``(N, H, W, C)``,
    ``(N, h, H)`` and ``(N, w, W)`` to ``(N, h, w, C)``."""
    count, height, width, channels = ops.shape(images)
    tall, wide = rows.shape[1], columns.shape[1]
    x = ops.matmul(rows, ops.reshape(images, (count, height, width * channels)))
    x = ops.transpose(ops.reshape(x, (count, tall, width, channels)), (0, 2, 1, 3))
    x = ops.matmul(columns, ops.reshape(x, (count, width, tall * channels)))
    return ops.transpose(ops.reshape(x, (count, wide, tall, channels)), (0, 2, 1, 3))
