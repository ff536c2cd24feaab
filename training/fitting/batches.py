"""The batches of a split, in an order that depends on the seed and the epoch alone.

Knows how Keras requests batches; knows nothing of networks, runs or files.
"""

import keras
import numpy as np
from numpy.typing import NDArray

from training.data.splits import Split


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The uint8 batches of a split: all of it in order or, with a seed, whole batches shuffled by
    seed and epoch.

    A short last batch would have too much weight in the gradient: training drops it.
    """

    def __init__(self, split: Split, size: int, *, seed: int | None = None) -> None:
        # With one worker TensorFlow reads through tf.data's tuner, which sometimes misses its
        # signal to end: the next epoch began, and a stopped process ended, up to a minute late.
        # With several, JAX, which reads ahead, gets batches of the epoch before.
        super().__init__(workers=2 if keras.backend.backend() == "tensorflow" else 1)
        self._split, self._size, self._seed = split, size, seed
        count = len(split.labels)
        whole = count // size if seed is not None else 0
        self.steps = whole or -(-count // size)  # of a whole epoch
        self.start_epoch(0)

    def __len__(self) -> int:
        return self.steps - self.done

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        first = (self.done + index) * self._size
        chosen = self._order[first : first + self._size]
        return self._split.images[chosen], self._split.labels[chosen]

    @property
    def shuffled(self) -> bool:
        """True if the batches are for training."""
        return self._seed is not None

    def sizes(self) -> list[int]:
        """Return the number of images in each batch of a whole epoch."""
        count = len(self._split.labels)
        return [min(self._size, count - step * self._size) for step in range(self.steps)]

    def start_epoch(self, epoch: int, *, done: int = 0) -> None:
        """Shuffle for an epoch, and skip its first ``done`` steps. Keras' own hook runs once more
        than there are epochs, so a resumed run could not rely on it."""
        self.done = done
        self._order = np.arange(len(self._split.labels))
        if self._seed is not None:
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._order)
