"""Random numbers for a batch of images, from one generator for each image.

Knows NumPy only.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 1  # of the benchmark; a published number states it

Floats = NDArray[np.float32]


class Draws:
    """The generators of images ``first`` to ``first + count - 1`` of a test split.

    Every method returns an array whose first axis is the image.
    """

    def __init__(self, kind: str, severity: int, *, first: int, count: int) -> None:
        name = zlib.crc32(kind.encode())
        self._generators = [
            np.random.default_rng((SEED, name, severity, index))
            for index in range(first, first + count)
        ]

    def normal(self, *shape: int) -> Floats:
        """Draw from the standard normal distribution: float32 ``(N, *shape)``."""
        return self._each(lambda rng: rng.standard_normal(shape, dtype=np.float32))

    def uniform(self, *shape: int) -> Floats:
        """Draw uniformly from 0 to 1: float32 ``(N, *shape)``."""
        return self._each(lambda rng: rng.random(shape, dtype=np.float32))

    def between(self, low: float, high: float, *shape: int) -> Floats:
        """Draw uniformly from ``low`` to ``high``: float32 ``(N, *shape)``."""
        return np.float32(low) + np.float32(high - low) * self.uniform(*shape)

    def integers(self, low: int, high: int, *shape: int) -> NDArray[np.int8]:
        """Draw whole numbers from ``low`` to ``high - 1``: int8 ``(N, *shape)``."""
        return self._each(lambda rng: rng.integers(low, high, shape, dtype=np.int8))

    def signs(self, *shape: int) -> NDArray[np.int8]:
        """Draw -1 or 1: int8 ``(N, *shape)``."""
        return 2 * self.integers(0, 2, *shape) - 1

    def poisson(self, rates: Floats) -> Floats:
        """Draw counts for rates ``(N, …)``: float32 of the same shape."""
        pairs = zip(self._generators, rates, strict=True)
        return np.stack([rng.poisson(each).astype(np.float32) for rng, each in pairs])

    def _each(self, draw: Callable[[np.random.Generator], NDArray[Any]]) -> NDArray[Any]:
        return np.stack([draw(rng) for rng in self._generators])
