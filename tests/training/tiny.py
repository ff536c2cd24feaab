"""A recipe and a data set small enough to train in a second."""

import keras
import numpy as np
from keras import layers

from training.data.datasets import Dataset
from training.data.splits import Split
from training.modelling.batch_norm import BatchNormalization
from training.modelling.recipe import Recipe, Tensor


def network(image: Tensor, classes: int) -> Tensor:
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = BatchNormalization(momentum=0.5)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.1)(x)
    return layers.Dense(classes, dtype="float32")(x)


RECIPE = Recipe(
    name="tiny",
    title="Dark or light",
    model="brightness",
    dataset="brightness",
    fit="stretch",
    size=(8, 8),
    channels=3,
    network=network,
    optimizer=lambda _steps: keras.optimizers.Adam(0.05),
    epochs=3,
    batch_size=32,
    min_accuracy=0.9,
)


def split(count: int, seed: int) -> Split:
    """Return dark (0) and light (1) images, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    noise = rng.integers(0, 100, (count, 8, 8, 3))
    return Split((noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels)


def dataset() -> Dataset:
    return Dataset(
        "brightness", ("dark", "light"), split(130, 1), split(64, 2), split(300, 3), "some-hash", ()
    )
