from typing import Any

import keras
import numpy as np

from training.data.splits import Split
from training.fitting.batches import Batches

COUNT = 130


class Recorder(keras.Model):  # type: ignore[misc]
    """A model that records its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[list[int]] = []
        self.tested: list[int] = []

    def train_step(self, data: Any) -> dict[str, float]:
        self.trained.append(np.ravel(data[0]).tolist())
        return {"loss": 0.0}

    def test_step(self, data: Any) -> dict[str, float]:
        self.tested += np.ravel(data[0]).tolist()
        return {"loss": 0.0}


def test_keras_receives_the_batches_of_each_epoch_in_order() -> None:
    images = np.arange(COUNT, dtype=np.uint8).reshape(COUNT, 1, 1, 1)
    split = Split(images, np.arange(COUNT))
    batches = Batches(split, 16, seed=1)
    start = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: batches.start_epoch(epoch)
    )
    model = Recorder()
    model.compile(run_eagerly=True)
    held_out = Batches(split, 50)
    model.fit(
        batches, epochs=3, shuffle=False, validation_data=held_out, callbacks=[start], verbose=0
    )
    orders = [np.random.default_rng((1, epoch)).permutation(COUNT)[:128] for epoch in range(3)]
    assert model.trained == [batch for order in orders for batch in order.reshape(8, 16).tolist()]
    assert model.tested == 3 * list(range(COUNT))
