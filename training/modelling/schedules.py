"""Learning rates over the steps of a run.

Knows Keras on any backend; knows nothing of recipes.
"""

from typing import Any

import keras
from keras import ops


class Triangle(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A straight rise from ``start`` of the peak, over the first ``rise`` share of the steps, then
    a straight fall to ``end`` of it (Smith and Topin, *Super-convergence*, 2018). ``peak`` is the
    highest learning rate."""

    def __init__(
        self, peak: float, steps: int, *, rise: float = 0.2, start: float = 0.2, end: float = 0.0
    ) -> None:
        self.peak, self.steps = peak, steps
        self.rise, self.start, self.end = rise, start, end

    def __call__(self, step: Any) -> Any:
        """Return the learning rate at a step, counted from 0."""
        done = ops.cast(step, "float32") / self.steps
        up = self.start + (1 - self.start) * done / self.rise
        down = 1 - (1 - self.end) * (done - self.rise) / (1 - self.rise)
        return self.peak * ops.clip(ops.minimum(up, down), 0.0, 1.0)
