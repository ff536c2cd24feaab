from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from tests.training import tiny
from training.modelling.network import build, feature_maps, seed_layers, served, trainable
from training.modelling.recipe import Tensor

IMAGES = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)


def test_a_network_of_any_size_trains_on_smaller_crops_than_served() -> None:
    recipe = replace(tiny.RECIPE, any_size=True, augment=lambda: [keras.layers.CenterCrop(6, 6)])
    network = build(recipe, 2)
    model = trainable(recipe, network, steps=1)
    model.run_eagerly = True  # tracing takes longer than one step
    model.train_on_batch(IMAGES, np.zeros(4))
    assert served(recipe, network).input_shape == (None, 8, 8, 3)


def test_an_epoch_seeds_every_layer_and_sets_its_number() -> None:
    class Counting(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.epoch = self.add_weight(dtype="int32", trainable=False, name="epoch")

        def call(self, images: object) -> object:
            return images

    counting = Counting()
    recipe = replace(tiny.RECIPE, augment=lambda: [counting])
    model = trainable(recipe, build(recipe, 2), steps=1)
    states = []
    for epoch in (3, 4, 3):
        seed_layers(model, (1, epoch))
        assert int(counting.epoch.numpy()) == epoch
        state = next(v for v in model.variables if v.name == "seed_generator_state")
        states.append(np.asarray(state).tolist())
    assert states[0] == states[2] != states[1]


def layered(x: Tensor) -> Tensor:
    x = layers.Conv2D(4, 3, use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


@pytest.mark.parametrize(
    "shown",
    [
        layers.Conv2D(4, 3, activation="relu"),
        layers.DepthwiseConv2D(3, activation="silu"),
        layered,
        lambda x: layers.Activation("gelu")(layers.Conv2D(4, 3)(x)),
        layers.Conv2D(4, 3),  # the nonlinearity behind the next convolution belongs to that one
    ],
)
def test_the_feature_maps_are_those_of_the_first_convolution_and_its_nonlinearity(
    shown: Callable[[Tensor], Tensor],
) -> None:
    image = keras.Input((8, 8, 3), dtype="uint8")
    expected = shown(layers.Rescaling(1 / 255)(image))
    end = layers.Flatten()(keras.ops.relu(layers.Conv2D(2, 3)(expected)))
    maps = feature_maps(keras.Model(image, end), IMAGES)
    assert maps is not None
    np.testing.assert_allclose(maps, keras.Model(image, expected).predict(IMAGES), atol=1e-6)


def test_a_network_without_a_convolution_has_no_feature_maps() -> None:
    image = keras.Input((8, 8, 3), dtype="uint8")
    network = keras.Model(image, layers.Dense(2)(layers.Flatten()(image)))
    assert feature_maps(network, IMAGES) is None
