"""Train one recipe on one data set: seed, precision, checkpoint after every epoch, resume, best
weights kept.

Knows Keras, on any backend; knows nothing of how the run folder is laid out, and nothing of export
or reports.
"""

import logging
import time
from pathlib import Path
from typing import Any

import keras

from training import run as runs
from training.batches import Batches
from training.datasets import Dataset
from training.network import build, seed_layers, trainable
from training.parallel import shared
from training.recipe import Recipe
from training.run import State

log = logging.getLogger(__name__)


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """After each epoch: the best network so far, the whole state, then the note that both are
    there."""

    def __init__(self, run: Path, state: State, network: keras.Model, batches: Batches) -> None:
        super().__init__()
        self._run, self._state, self._network, self._batches = run, state, network, batches
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch: int, *_: Any) -> None:
        """Shuffle, seed, and start the clock."""
        self._batches.start_epoch(epoch)
        seed_layers(self.model, (self._state.seed, epoch))
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save.

        Each file is written beside its place and renamed, so that a kill leaves whole files.
        """
        state, logs = self._state, logs or {}
        for name, value in logs.items():
            state.history.setdefault(name, []).append(float(value))
        state.epoch = epoch + 1
        state.seconds += time.monotonic() - self._started
        if logs["val_accuracy"] > state.best_accuracy:
            state.best_accuracy, state.best_epoch = float(logs["val_accuracy"]), epoch + 1
            runs.save_weights(self._network, runs.best(self._run))
        runs.save_weights(self.model, runs.checkpoint(self._run, state.epoch))
        runs.write_state(self._run, state)
        runs.checkpoint(self._run, epoch).unlink(missing_ok=True)


def fit(
    recipe: Recipe,
    data: Dataset,
    *,
    run: Path,
    seed: int = 1,
    epochs: int | None = None,
    precision: str = "auto",
    command: str = "",
    verbose: int = 1,
) -> State:
    """Train, or go on from the run folder's checkpoint; ``best.weights.h5`` there is the result.

    Raises:
        RunMismatch: the run folder holds another recipe, seed, length, precision or data.
    """
    run.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(_policy(precision))
    state = State(
        recipe=recipe.name,
        page=recipe.fingerprint(),
        seed=seed,
        epochs=epochs or recipe.epochs,
        precision=keras.config.dtype_policy().name,
        data=data.content_hash,
        command=command,
    )
    network = build(recipe, len(data.labels))
    batches = Batches(data.train, recipe.batch_size, seed=seed)
    model = trainable(recipe, network, steps=len(batches) * state.epochs)
    state = runs.begun(run, state)
    if state.epoch:
        model.load_weights(runs.checkpoint(run, state.epoch))
        log.info("resuming %s after epoch %d of %d", state.recipe, state.epoch, state.epochs)
    elif recipe.prepare:
        recipe.prepare(network, data.train.images)
    if state.epoch < state.epochs:
        model.fit(
            shared(batches),
            shuffle=False,  # they are shuffled already, in a way that a resumed run repeats
            validation_data=shared(Batches(data.validation, 256)),
            initial_epoch=state.epoch,
            epochs=state.epochs,
            callbacks=[Checkpoint(run, state, network, batches)],
            verbose=verbose,
        )
    keras.config.set_dtype_policy("float32")
    return state


def _policy(precision: str) -> str:
    """``auto`` is bfloat16 where TensorFlow multiplies it in hardware: half the time of float32,
    and the same accuracy. JAX gains nothing by it on a processor, and hosts must agree."""
    if precision != "auto":
        return precision
    if keras.backend.backend() == "jax":
        return "float32"
    flags = Path("/proc/cpuinfo")
    return "mixed_bfloat16" if flags.exists() and "avx512_bf16" in flags.read_text() else "float32"
