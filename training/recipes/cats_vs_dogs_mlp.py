"""Cats against dogs, one hidden dense layer: a tutorial's first network, which learns nothing.

Measured: 49.7 % of the 2,289 test images, seed 1, in 16 minutes on two busy cores with bfloat16:
    python -m training reproduce cats_vs_dogs_mlp
Published: random guessing, of 1,024 validation images.
Difference: None: on pixels 0-255 the sigmoid saturates at once, and squared error has no gradient
left.

Not in the text, and our choice: 512 hidden units, ReLU, a sigmoid score, pixels 0-255,
batch 32.
"""

import keras
from keras import layers

from training.modelling.recipe import Recipe, Tensor


def network(image: Tensor, outputs: int) -> Tensor:
    """Build dense 512, with 18,049,025 weights."""
    x = keras.ops.cast(image, keras.config.floatx())  # 0-255
    x = layers.Flatten()(x)
    x = layers.Dense(512, activation="relu")(x)
    return layers.Dense(outputs, activation="sigmoid", dtype="float32")(x)


RECIPE = Recipe(
    name="cats_vs_dogs_mlp",
    title="Cats against dogs, one score",
    model="cats_vs_dogs",
    dataset="cats_vs_dogs",
    fit="stretch",
    size=(94, 125),
    channels=3,
    network=network,
    optimizer=lambda _steps: keras.optimizers.Adam(1e-5),
    epochs=10,
    batch_size=32,
    loss="mean_squared_error",
    published_split=(4_096, 1_024),
    min_accuracy=0.45,
)
