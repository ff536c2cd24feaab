"""Augmentation as Keras layers: pixels 0-255 in, pixels 0-255 out, on the device, outside the
exported graph.

Knows ``keras.ops`` only, so that it runs on every backend; knows nothing of recipes.
"""

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("convserve")
class RandomResizedCrop(keras.layers.Layer):  # type: ignore[misc]
    """Cut a random part of each image and scale it to ``side`` pixels, or back to the full size.

    The part covers ``area`` (low, high) of the image, uniformly; its aspect ratio is log-uniform
    in ``ratio``. Images are float ``(N, H, W, C)``. As in Szegedy et al., *Going deeper with
    convolutions*, 2015. Linear interpolation is one matrix product per axis.
    """

    def __init__(
        self,
        side: int | None = None,
        area: tuple[float, float] = (0.35, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.side, self.area, self.ratio = side, area, ratio
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        """Crop while training; pass the images through otherwise."""
        if not training:
            return images
        count, height, width, channels = ops.shape(images)
        share = ops.sqrt(self._uniform(count, self.area))
        skew = ops.exp(self._uniform(count, [math.log(edge) for edge in self.ratio]) / 2)
        rows = self._weights(ops.minimum(share / skew, 1.0), height)
        columns = self._weights(ops.minimum(share * skew, 1.0), width)
        tall, wide = rows.shape[1], columns.shape[1]
        x = ops.matmul(rows, ops.reshape(images, (count, height, width * channels)))
        x = ops.transpose(ops.reshape(x, (count, tall, width, channels)), (0, 2, 1, 3))
        x = ops.matmul(columns, ops.reshape(x, (count, width, tall * channels)))
        return ops.transpose(ops.reshape(x, (count, wide, tall, channels)), (0, 2, 1, 3))

    def _weights(self, share: Any, size: Any) -> Any:
        """How much each of ``size`` pixels gives to each of the new ones: ``(N, side, size)``."""
        steps = ops.linspace(0.0, 1.0, self.side or size)
        start = self._uniform(ops.shape(share)[0], (0, 1)) * (1 - share)
        place = (start[:, None] + share[:, None] * steps) * (size - 1)
        return ops.relu(1 - ops.abs(place[:, :, None] - ops.arange(size, dtype="float32")))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Unknown sides where the layer gives another size than it gets: it does so only while
        training."""
        return shape if self.side is None else (shape[0], None, None, shape[3])

    def _uniform(self, count: Any, limits: Any) -> Any:
        return keras.random.uniform((count,), *limits, dtype="float32", seed=self.seed_generator)
