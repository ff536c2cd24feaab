"""MNIST, one 5×5 convolution and Adam: the simple network of a much-read tutorial.

Measured: 98.92 % of the 10,000 test images, seed 1, in 1.5 minutes on two busy cores with bfloat16:
    python -m training reproduce digits_conv5
Published: 98.73 % of the test images.
Difference: Slightly higher, with one seed; the network and its training are the same.

Pixels are scaled to 0-1 and the batch is 150, as in the text; Adam has Keras' defaults.
"""

import keras
from keras import layers

from training.modelling.recipe import Recipe, Tensor


def network(image: Tensor, classes: int) -> Tensor:
    """Build conv 32 of 5×5, max-pool and dense 128, with 592,074 weights."""
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(32, 5, activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(0.2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    return layers.Dense(classes, dtype="float32")(x)


RECIPE = Recipe(
    name="digits_conv5",
    title="Handwritten digits",
    model="digits",
    dataset="mnist",
    fit="digit",
    size=(28, 28),
    channels=1,
    network=network,
    optimizer=lambda _steps: keras.optimizers.Adam(),
    epochs=5,
    batch_size=150,
    min_accuracy=0.982,
)
