"""The Keras models of a recipe: the network itself, and the same behind its augmentation, compiled.

Knows Keras on any backend; knows nothing of data, of runs or of files.
"""

from typing import Any

import keras
import numpy as np

from training.recipe import Recipe, Tensor


def build(recipe: Recipe, classes: int) -> keras.Model:
    """The network of a recipe under the precision policy in force: uint8 ``(N, H, W, C)`` to
    float32 logits ``(N, classes)``."""
    image = _image(recipe)
    return keras.Model(image, recipe.network(image, classes), name=recipe.name)


def served(recipe: Recipe, network: keras.Model) -> keras.Model:
    """What is published of a network: uint8 images of the recipe's size to logits; where the recipe
    is ``mirrored``, their mean over the image and its mirror image."""
    image = keras.Input(recipe.shape, dtype="uint8", name="image")
    if not recipe.mirrored:
        return keras.Model(image, network(image))
    both = network(keras.ops.concatenate([image, keras.ops.flip(image, axis=2)]))
    pairs = keras.ops.reshape(both, (2, -1, both.shape[-1]))
    return keras.Model(image, keras.ops.mean(pairs, axis=0))


def trainable(recipe: Recipe, network: keras.Model, *, steps: int) -> keras.Model:
    """The network behind its augmentation, compiled; its weights are the network's own."""
    image = _image(recipe)
    model = keras.Model(image, network(_augmented(recipe, image)))
    optimizer = recipe.optimizer(steps)
    model.compile(
        optimizer,
        loss=SmoothedCrossEntropy(recipe.label_smoothing),
        weighted_metrics=["accuracy"],  # images that fill up a batch of several hosts weigh nothing
        jit_compile="auto"
        if keras.backend.backend() == "jax"
        else False,  # XLA on a CPU: 14 times slower
    )
    optimizer.build(model.trainable_variables)  # so that a checkpoint finds its slots
    return model


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
    """Give dropout and augmentation the random state of this epoch, ``(seed, epoch)``: Keras saves
    it with no weights, and a resumed run must draw as an uninterrupted one."""
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    words = np.random.SeedSequence(seed).generate_state(2 * len(states))
    for variable, state in zip(states, words.reshape(-1, 2), strict=True):
        variable.assign(state)
    for variable in (v for v in model.variables if v.name == "epoch"):
        variable.assign(seed[1])


@keras.saving.register_keras_serializable("convserve")
class SmoothedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy of integer labels and logits, the target mixed with the uniform distribution
    (Szegedy et al., 2016)."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__(name="cross_entropy")
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Labels ``(N,)`` or ``(N, 1)`` and logits ``(N, K)`` to losses ``(N,)``."""
        logs = keras.ops.log_softmax(y_pred)
        target = keras.ops.one_hot(
            keras.ops.reshape(y_true, (-1,)), logs.shape[-1], dtype=logs.dtype
        )
        hit = keras.ops.sum(target * logs, axis=-1)
        return -(1 - self.smoothing) * hit - self.smoothing * keras.ops.mean(logs, axis=-1)
