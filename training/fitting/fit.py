"""Train one recipe on one data set: seed, precision, resume, best weights kept.

A run that is killed loses at most the running epoch; one that SIGTERM stops loses no step but a
first one, and no more than a validation. A resumed run ends with the weights of one that was never
stopped, on a processor bit for bit.

Knows Keras, on any backend; knows nothing of how the run folder is laid out, and nothing of export
or reports.
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.data.datasets import Dataset
from training.errors import Diverged
from training.fitting import checkpoints as runs
from training.fitting.batches import Batches
from training.fitting.checkpoints import State
from training.fitting.distributed import shared
from training.fitting.signals import SIGTERM
from training.modelling.network import build, on_gpu, passing, seed_layers, set_passing, trainable
from training.modelling.recipe import Recipe

log = logging.getLogger(__name__)


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Keep the run: after each epoch, before its validation and after it, and between two steps
    where SIGTERM stops it. Nothing is kept of a network that is lost to NaN."""

    async_safe = True  # Keras need not wait for each step before it sends the next

    def __init__(self, run: Path, state: State, network: keras.Model, batches: Batches) -> None:
        super().__init__()
        self._run, self._state, self._network, self._batches = run, state, network, batches
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch: int, *_: Any) -> None:
        """Shuffle, seed, and start the clock."""
        state = self._state
        self._batches.start_epoch(epoch, done=state.step)
        seed_layers(self.model, (state.seed, epoch))
        if state.step:
            set_passing(self.model, state.passing)
        self._started = time.monotonic()

    def on_train_batch_begin(self, batch: int, **_: Any) -> None:
        """Save and stop if SIGTERM came; it waits from the second step on, when there is something
        to lose."""
        if not batch:
            return
        if SIGTERM.arrived:
            self._save(self._batches.done + batch)
            SIGTERM.release()
        SIGTERM.hold()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop where the loss is no number."""
        if logs and not math.isfinite(logs["loss"]):
            raise self._diverged(self._batches.done + batch + 1)

    def on_test_begin(self, *_: Any) -> None:
        """Save the epoch's training: from here on SIGTERM need not wait."""
        self._save(self._batches.steps)
        SIGTERM.release()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note what the epoch has reached; the best network so far is kept apart."""
        SIGTERM.hold()
        state, logs = self._state, logs or {}
        if state.step < self._batches.steps:  # it had no validation
            self._save(self._batches.steps)
        for name, value in logs.items():
            state.history.setdefault(name, []).append(float(value))
        state.epoch, state.step, state.passing = epoch + 1, 0, []
        self._tick()
        accuracy = float(logs.get("val_accuracy", state.best_accuracy))
        if accuracy > state.best_accuracy or "val_accuracy" not in logs:
            state.best_accuracy, state.best_epoch = accuracy, epoch + 1
            runs.save_weights(self._network, runs.best(self._run))
        runs.write_state(self._run, state)
        SIGTERM.release()

    def _save(self, step: int) -> None:
        state, whole = self._state, step == self._batches.steps
        state.step, state.passing = step, passing(self.model)
        if not all(np.isfinite(each).all() for each in (*self.model.get_weights(), *state.passing)):
            raise self._diverged(step)
        state.checkpoint = runs.checkpoint(state.epoch + whole, 0 if whole else step)
        self._tick()
        runs.save(self._run, state, self.model)

    def _tick(self) -> None:
        now = time.monotonic()
        self._state.seconds += now - self._started
        self._started = now

    def _diverged(self, step: int) -> Diverged:
        return Diverged(
            f"The loss of {self._state.recipe} is no number any more: epoch "
            f"{self._state.epoch + 1}, step {step} of {self._batches.steps}. Nothing of it was "
            "saved, so the same command comes to this point again. Try a lower learning rate, or "
            "--precision float32, and another folder with --runs."
        )


def fit(
    recipe: Recipe,
    data: Dataset,
    *,
    run: Path,
    seed: int = 1,
    epochs: int | None = None,
    precision: str = "auto",
    command: str = "",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> State:
    """Train, or go on from the run folder's checkpoint; ``best.weights.h5`` there is the result:
    the last epoch's where there is no validation accuracy to choose by.

    Raises:
        Diverged: the loss is no number any more.
        Preempted: SIGTERM came; what was reached is saved.
        RunFailed: the run folder cannot be read or written, or another process is at work in it.
        RunMismatch: the run folder holds another recipe, seed, length, precision or data.
    """
    with runs.alone(run), SIGTERM.heard(), _under(precision) as policy_name:
        keras.utils.set_random_seed(seed)
        state = State(
            recipe=recipe.name,
            page=recipe.fingerprint(),
            seed=seed,
            epochs=epochs or recipe.epochs,
            precision=policy_name,
            data=data.content_hash,
            command=command,
        )
        network = build(recipe, len(data.labels))
        batches = Batches(data.train, recipe.batch_size, seed=seed)
        model = trainable(recipe, network, steps=batches.steps * state.epochs)
        state = runs.begun(run, state)
        if state.checkpoint:
            state = _resumed(run, state, model)
        elif recipe.prepare:
            recipe.prepare(network, data.train.images)
        keep = Checkpoint(run, state, network, batches)
        # The run moves on only when the others have heard.
        options = _options(data, [*callbacks, keep], verbose)
        if state.step:
            _end_epoch(model, batches, state, options)
            runs.load_weights(model, run / state.checkpoint)  # an optimiser may average at the end
        if state.epoch < state.epochs:
            batches.start_epoch(state.epoch)
            model.fit(shared(batches), initial_epoch=state.epoch, epochs=state.epochs, **options)
        return state


def _options(
    data: Dataset, callbacks: Sequence[keras.callbacks.Callback], verbose: int
) -> dict[str, Any]:
    held_out = shared(Batches(data.validation, 256)) if len(data.validation.labels) else None
    return {
        "shuffle": False,  # they are shuffled already, in a way that a resumed run repeats
        "validation_data": held_out,
        "callbacks": callbacks,
        "verbose": verbose,
    }


def _resumed(run: Path, state: State, model: keras.Model) -> State:
    state = runs.restore(run, state, model)
    log.info(
        "resuming %s after epoch %d of %d and %d steps of the next",
        *(state.recipe, state.epoch, state.epochs, state.step),
    )
    return state


def _end_epoch(model: keras.Model, batches: Batches, state: State, options: dict[str, Any]) -> None:
    """Train what is left of an epoch that was stopped, or validate it where nothing is left."""
    model.test_on_batch(*batches[0])  # or it had no metrics to give their values back to
    if state.step < batches.steps:
        batches.start_epoch(state.epoch, done=state.step)
        model.fit(shared(batches), initial_epoch=state.epoch, epochs=state.epoch + 1, **options)
        return
    validated = {}
    if validation := options["validation_data"]:
        logs = model.evaluate(validation, verbose=options["verbose"], return_dict=True)
        validated = {f"val_{name}": value for name, value in logs.items()}
    set_passing(model, state.passing)
    told = model.get_metrics_result() | validated
    epoch = state.epoch  # one of them moves it on
    for callback in options["callbacks"]:
        callback.set_model(model)
        callback.on_epoch_end(epoch, told)


@contextmanager
def _under(precision: str) -> Iterator[str]:
    """Put a precision policy in force, by its name; float32 afterwards."""
    name = policy(precision)
    keras.config.set_dtype_policy(name)
    try:
        yield name
    finally:
        keras.config.set_dtype_policy("float32")


def policy(precision: str) -> str:
    """``auto`` is bfloat16 on a GPU, and where TensorFlow multiplies it in hardware: half the time
    of float32, and the same accuracy. JAX on a processor gains nothing by it."""
    if precision != "auto":
        return precision
    if on_gpu():
        return "mixed_bfloat16"
    if keras.backend.backend() == "jax":
        return "float32"
    flags = Path("/proc/cpuinfo")
    return "mixed_bfloat16" if flags.exists() and "avx512_bf16" in flags.read_text() else "float32"
