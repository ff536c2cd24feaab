"""The Keras models of a recipe: the network alone, and compiled behind its augmentation.

Knows Keras on any backend; knows nothing of data, runs or files.
"""

import os
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.modelling.recipe import Recipe, Tensor

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
NONLINEAR = (keras.layers.Activation, keras.layers.ReLU)


def build(recipe: Recipe, classes: int) -> keras.Model:
    """Build the network of a recipe under the current precision policy: uint8 ``(N, H, W, C)`` to
    float32 logits ``(N, classes)``, or to one score ``(N, 1)``."""
    image = _image(recipe)
    return keras.Model(image, recipe.network(image, recipe.outputs(classes)), name=recipe.name)


def served(recipe: Recipe, network: keras.Model) -> keras.Model:
    """Return the network to publish: uint8 images of the recipe's size to logits."""
    image = keras.Input(recipe.shape, dtype="uint8", name="image")
    return keras.Model(image, network(image))


def feature_maps(network: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Return the activations ``(N, h, w, channels)`` of a network's first convolution, after its
    nonlinearity (part of the layer or a layer behind it); None if there is no convolution."""
    steps = network.operations
    convolutions = [step for step in steps if isinstance(step, CONVOLUTIONS)]
    if not convolutions:
        return None
    first, *later = convolutions
    shown = first
    if first.activation is keras.activations.linear:
        end = steps.index(later[0]) if later else len(steps)
        after = steps[steps.index(first) : end]
        shown = next((step for step in after if isinstance(step, NONLINEAR)), first)
    return predict(keras.Model(network.input, shown.output), images)


def predict(
    network: keras.Model, images: NDArray[np.uint8], *, batch: int = 256
) -> NDArray[np.float32]:
    """Run a network on uint8 images ``(N, H, W, C)``."""
    return np.asarray(network.predict(images, batch_size=batch, verbose=0), np.float32)


def trainable(recipe: Recipe, network: keras.Model, *, steps: int) -> keras.Model:
    """Return the network behind its augmentation, compiled; both share their weights."""
    image = _image(recipe)
    model = keras.Model(image, network(_augmented(recipe, image)))
    optimizer = recipe.optimizer(steps)
    loss = SmoothedCrossEntropy(recipe.label_smoothing)
    model.compile(
        optimizer,
        loss=loss if recipe.gives_classes else keras.losses.MeanSquaredError(),
        # weighted: padding in a batch of several hosts has weight 0
        weighted_metrics=["accuracy"] if recipe.gives_classes else [],
        # XLA; with TensorFlow on a CPU it is 14 times slower
        jit_compile=keras.backend.backend() == "jax" or on_gpu(),
    )
    optimizer.build(model.trainable_variables)  # a checkpoint needs its slots
    return model


def cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux has it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_gpu() -> bool:
    """Return True if Keras computes on a GPU. (JAX raises if asked for GPUs on a host without.)"""
    return any(device.startswith("gpu") for device in keras.distribution.list_devices())


def _image(recipe: Recipe) -> Tensor:
    size = (None, None) if recipe.any_size else recipe.size
    return keras.Input((*size, recipe.channels), dtype="uint8", name="image")


def _augmented(recipe: Recipe, image: Tensor) -> Tensor:
    steps = recipe.augment()
    if not steps:
        return image
    x = keras.ops.cast(image, "float32")
    for layer in steps:
        layer.dtype_policy = "float32"
        x = layer(x)
    return keras.ops.cast(keras.ops.clip(keras.ops.round(x), 0, 255), "uint8")


def seed_layers(model: keras.Model, seed: tuple[int, int]) -> None:
    """Set the random state of dropout and augmentation to ``(seed, epoch)``: Keras does not save it
    with the weights, and a resumed run must draw the same numbers."""
    states = _random(model)
    words = np.random.SeedSequence(seed).generate_state(2 * len(states))
    for variable, state in zip(states, words.reshape(-1, 2), strict=True):
        variable.assign(state)
    for variable in (v for v in model.variables if v.name == "epoch"):
        variable.assign(seed[1])


def _random(model: keras.Model) -> list[Any]:
    return [v for v in model.variables if v.name == "seed_generator_state"]


def transient_state(model: keras.Model) -> list[Any]:
    """Return the state that changes with each step but is not part of the weights, as numbers: the
    random states, and the metrics of this epoch so far."""
    held = [*_random(model), *model.metrics_variables]
    return [keras.ops.convert_to_numpy(variable).tolist() for variable in held]


def set_transient_state(model: keras.Model, values: list[Any]) -> None:
    """Restore ``transient_state``; a model has metrics only after its first batch."""
    for variable, value in zip([*_random(model), *model.metrics_variables], values, strict=True):
        variable.assign(value)


class SmoothedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """The cross-entropy of integer labels and logits, with the target mixed with the uniform
    distribution (Szegedy et al., 2016), which is the whole target of a negative label: an outlier
    (Hendrycks et al., 2019)."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__(name="cross_entropy")
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Map labels ``(N,)`` or ``(N, 1)`` and logits ``(N, K)`` to losses ``(N,)``."""
        logs = keras.ops.log_softmax(y_pred)
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        target = keras.ops.one_hot(labels, logs.shape[-1], dtype=logs.dtype)
        hit = keras.ops.sum(target * logs, axis=-1)
        smoothing = keras.ops.where(labels < 0, 1.0, self.smoothing)
        return -(1 - smoothing) * hit - smoothing * keras.ops.mean(logs, axis=-1)
