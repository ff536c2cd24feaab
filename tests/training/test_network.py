from dataclasses import replace

import keras
import numpy as np

from tests.training import tiny
from training.network import build, seed_layers, served, trainable

IMAGES = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)


def test_a_network_of_any_size_trains_on_smaller_crops_than_it_is_served_at() -> None:
    recipe = replace(tiny.RECIPE, any_size=True, augment=lambda: [keras.layers.CenterCrop(6, 6)])
    network = build(recipe, 2)
    model = trainable(recipe, network, steps=1)
    model.train_on_batch(IMAGES, np.zeros(4))
    assert served(recipe, network).input_shape == (None, 8, 8, 3)


def test_an_epoch_seeds_every_layer_anew_and_tells_its_number() -> None:
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
