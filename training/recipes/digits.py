"""Handwritten digits: six convolutions with batch normalisation, trained on distorted digits.

Measured: 99.70 % of the 10,000 test images, seed 1, in 27 minutes on two busy cores with bfloat16:
    python -m training train digits
Plain 3×3 convolutions in the manner of An et al., *An ensemble of simple convolutional neural
network models for MNIST digit recognition*, 2020, with pooling, for a tenth of the cost.
"""

import keras
from keras import layers

from training.modelling.augment import RandomAffine
from training.modelling.recipe import Recipe, Tensor
from training.modelling.schedules import Triangle


def _conv(x: Tensor, filters: int, padding: str) -> Tensor:
    x = layers.Conv2D(filters, 3, padding=padding, use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def network(image: Tensor, classes: int) -> Tensor:
    """Build pairs of 32, 64 and 128 filters at sides 26, 12 and 6."""
    x = layers.Rescaling(1 / 79, offset=-0.42)(image)  # zero mean and unit variance
    x = _conv(_conv(x, 32, "valid"), 32, "valid")
    for filters in (64, 128):
        x = layers.MaxPooling2D(2)(x)
        x = _conv(_conv(x, filters, "same"), filters, "same")
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.3)(x)
    return layers.Dense(classes, dtype="float32")(x)


def optimizer(steps: int) -> keras.optimizers.Optimizer:
    """Return Nesterov momentum on a triangle that ends at zero."""
    # Keras applies the decay outside the momentum: 5e-3 × (1 - 0.9) = 5e-4.
    sgd = keras.optimizers.SGD(Triangle(0.2, steps), momentum=0.9, nesterov=True, weight_decay=5e-3)
    sgd.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return sgd


RECIPE = Recipe(
    name="digits",
    title="Handwritten digits",
    model="digits",
    dataset="mnist",
    fit="digit",
    size=(28, 28),
    channels=1,
    network=network,
    optimizer=optimizer,
    augment=lambda: [RandomAffine(degrees=12, shear=0.2, scale=0.12, shift=2.0, seed=1)],
    epochs=30,
    batch_size=256,
    label_smoothing=0.1,
    min_accuracy=0.995,
    recommended=True,
)
