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
    """Cut a random part of each image and scale it back to the full size, in one interpolation.

    The part covers ``area`` (low, high) of the image, uniformly; its aspect ratio is log-uniform
    in ``ratio``. Images are float ``(N, H, W, C)``. As in Szegedy et al., *Going deeper with
    convolutions*, 2015.
    """

    def __init__(
        self,
        area: tuple[float, float] = (0.35, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.area = area
        self.log_ratio = math.log(ratio[0]), math.log(ratio[1])
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        """Crop while training; pass the images through otherwise."""
        if not training:
            return images
        count, height, width, _ = ops.shape(images)
        side = ops.sqrt(self._uniform(count, self.area))
        skew = ops.exp(self._uniform(count, self.log_ratio) / 2)
        tall, wide = ops.minimum(side / skew, 1.0), ops.minimum(side * skew, 1.0)
        top = self._uniform(count, (0, 1)) * (1 - tall) * (height - 1)
        left = self._uniform(count, (0, 1)) * (1 - wide) * (width - 1)
        zero = ops.zeros((count,))
        # output (x, y) reads input (a0 x + a1 y + a2, b0 x + b1 y + b2)
        transform = ops.stack([wide, zero, left, zero, tall, top, zero, zero], axis=1)
        return ops.image.affine_transform(images, transform, fill_mode="reflect")

    def _uniform(self, count: Any, limits: tuple[float, float]) -> Any:
        return keras.random.uniform((count,), *limits, dtype="float32", seed=self.seed_generator)
