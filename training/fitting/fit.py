"""Train one recipe on one data set: seed, precision, resume, best weights kept.

A killed run loses at most the current epoch; a run stopped by SIGTERM loses at most the first step
of an epoch, or a validation. A resumed run ends with the weights of an uninterrupted one, on a
processor bit for bit.

Knows Keras, on any backend; knows nothing of the layout or the lock of the run folder, of export or
of reports.
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
from training.data.splits import Split
from training.errors import Diverged
from training.fitting import checkpoints as runs
from training.fitting import provenance
from training.fitting.batches import Batches
from training.fitting.checkpoints import State
from training.fitting.distributed import shared
from training.fitting.signals import SIGTERM
from training.fitting.tracking import Tracker
from training.modelling.network import (
    build,
    on_gpu,
    seed_layers,
    set_transient_state,
    trainable,
    transient_state,
)
from training.modelling.recipe import Recipe

log = logging.getLogger(__name__)


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves the run after each epoch, before and after its validation, and between two steps if
    SIGTERM stops it. A network with NaN in it is not saved."""

    async_safe = True  # Keras need not wait for a step before it starts the next

    def __init__(self, run: Path, state: State, network: keras.Model, batches: Batches) -> None:
        super().__init__()
        self._run, self._state, self._network, self._batches = run, state, network, batches
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch: int, *_: Any) -> None:
        """Shuffle, seed and start the clock."""
        state = self._state
        self._batches.start_epoch(epoch, done=state.step)
        seed_layers(self.model, (state.seed, epoch))
        if state.step:
            set_transient_state(self.model, state.passing)
        self._started = time.monotonic()

    def on_train_batch_begin(self, batch: int, **_: Any) -> None:
        """Save and stop if SIGTERM was received; it is held from the second step on."""
        if not batch:
            return
        if SIGTERM.received:
            self._save(self._batches.done + batch)
            SIGTERM.release()
        SIGTERM.hold()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop if the loss is not finite."""
        if logs and not math.isfinite(logs["loss"]):
            raise self._diverged(self._batches.done + batch + 1)

    def on_test_begin(self, *_: Any) -> None:
        """Save the trained epoch; validation need not hold SIGTERM."""
        self._save(self._batches.steps)
        SIGTERM.release()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save the results of the epoch, and the network if it is the best so far."""
        SIGTERM.hold()
        state, logs = self._state, logs or {}
        if state.step < self._batches.steps:  # there was no validation
            self._save(self._batches.steps)
        for name, value in logs.items():
            state.history.setdefault(name, []).append(float(value))
        state.epoch, state.step, state.passing = epoch + 1, 0, []
        state.ended = provenance.now()
        self._tick()
        accuracy = float(logs.get("val_accuracy", state.best_accuracy))
        if accuracy > state.best_accuracy or "val_accuracy" not in logs:
            state.best_accuracy, state.best_epoch = accuracy, epoch + 1
            runs.save_weights(self._network, runs.best(self._run))
        runs.write_state(self._run, state)
        SIGTERM.release()

    def _save(self, step: int) -> None:
        state, whole = self._state, step == self._batches.steps
        state.step, state.passing = step, transient_state(self.model)
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
            f"The loss of {self._state.recipe} is not finite: epoch {self._state.epoch + 1}, step "
            f"{step} of {self._batches.steps}. This step was not saved; the same command will "
            "reach it again. Try a lower learning rate, or --precision float32, and another folder "
            "with --runs."
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
    """Train, or resume from the checkpoint in the run folder, which the caller has locked.

    ``best.weights.h5`` there is the result: of the epoch with the best validation accuracy, or of
    the last epoch if there is no such accuracy.

    Raises:
        Diverged: if the loss is not finite.
        Preempted: if SIGTERM was received; the progress is saved.
        RunFailed: if the run folder cannot be read or written.
        RunMismatch: if the run folder holds another recipe, seed, length, precision or data.
    """
    with SIGTERM.released_at_end(), _under(policy(precision, run)) as policy_name:
        keras.utils.set_random_seed(seed)
        state = State(
            recipe=recipe.name,
            page=recipe.fingerprint(),
            seed=seed,
            epochs=epochs or recipe.epochs,
            precision=policy_name,
            data=data.content_hash,
            command=command,
            sources=[provenance.source(keras.backend.backend())],
        )
        network = build(recipe, len(data.labels))
        batches = Batches(_with_outliers(data), recipe.batch_size, seed=seed)
        model = trainable(recipe, network, steps=batches.steps * state.epochs)
        source = state.sources[0]
        state = runs.begin(run, state)
        if state.checkpoint:
            _note_source(run, state, source)
            state = runs.restore(run, state, model)
        elif recipe.prepare:
            recipe.prepare(network, data.train.images)
        for callback in callbacks:
            if isinstance(callback, Tracker):
                callback.begun(state)
        keep = Checkpoint(run, state, network, batches)
        options = _options(data, [*callbacks, keep], verbose)  # others first: no epoch unreported
        if state.step:
            _end_epoch(model, batches, state, options)
            runs.load_weights(model, run / state.checkpoint)  # fit may have averaged weights
        if state.epoch < state.epochs:
            batches.start_epoch(state.epoch)
            model.fit(shared(batches), initial_epoch=state.epoch, epochs=state.epochs, **options)
        return state


def check(
    recipe: Recipe, *, run: Path, seed: int = 1, epochs: int | None = None, precision: str = "auto"
) -> None:
    """Raise ``RunMismatch`` if the run folder holds another run than ``fit`` would train, data
    aside: before the data are read."""
    runs.check(
        run,
        recipe=recipe.name,
        page=recipe.fingerprint(),
        seed=seed,
        epochs=epochs or recipe.epochs,
        precision=policy(precision, run),
    )


def _note_source(run: Path, state: State, source: dict[str, Any]) -> None:
    """Warn if other code than that of the run's beginning resumes it, and add it to the state."""
    if state.epoch == state.epochs:
        return
    if not state.sources:
        log.warning(
            "%s does not say which code it began with: an older version wrote it. It resumes; "
            "under other code its weights may differ from those of an uninterrupted run.",
            run,
        )
    elif difference := provenance.difference(state.sources[-1], source):
        log.warning(
            "%s began or continued under other code or libraries: %s. It resumes; its weights may "
            "differ from those of an uninterrupted run.",
            *(run, difference),
        )
        state.sources.append(source)


def _with_outliers(data: Dataset) -> Split:
    """Return the training split and its outliers; label -1 stands for every class equally."""
    if data.outliers is None:
        return data.train
    return Split(
        np.concatenate([data.train.images, data.outliers]),
        np.concatenate([data.train.labels, np.full(len(data.outliers), -1)]),
    )


def _options(
    data: Dataset, callbacks: Sequence[keras.callbacks.Callback], verbose: int
) -> dict[str, Any]:
    held_out = shared(Batches(data.validation, 256)) if len(data.validation.labels) else None
    return {
        "shuffle": False,  # `Batches` shuffles, repeatably
        "validation_data": held_out,
        "callbacks": callbacks,
        "verbose": verbose,
    }


def _end_epoch(model: keras.Model, batches: Batches, state: State, options: dict[str, Any]) -> None:
    """Train the remaining steps of a stopped epoch, or validate it if none remain."""
    model.test_on_batch(*batches[0])  # creates the metrics to restore
    if state.step < batches.steps:
        batches.start_epoch(state.epoch, done=state.step)
        model.fit(shared(batches), initial_epoch=state.epoch, epochs=state.epoch + 1, **options)
        return
    validated = {}
    if validation := options["validation_data"]:
        found = model.evaluate(validation, verbose=options["verbose"], return_dict=True)
        validated = {f"val_{name}": value for name, value in found.items()}
    set_transient_state(model, state.passing)
    logs = model.get_metrics_result() | validated
    epoch = state.epoch  # a callback advances it
    for callback in options["callbacks"]:
        callback.set_model(model)
        callback.on_epoch_end(epoch, logs)


@contextmanager
def _under(name: str) -> Iterator[str]:
    """Set a precision policy and yield its name; restore float32 afterwards."""
    keras.config.set_dtype_policy(name)
    try:
        yield name
    finally:
        keras.config.set_dtype_policy("float32")


def policy(precision: str, run: Path | None = None) -> str:
    """Return the name of a precision policy.

    ``auto`` is that of the run, if it has begun; else bfloat16 on a GPU, and with TensorFlow on a
    processor that multiplies it in hardware: half the time of float32, and the same accuracy. JAX
    on a processor gains nothing.
    """
    if precision != "auto":
        return precision
    if run and (state := runs.held(run)):
        return state.precision
    if on_gpu():
        return "mixed_bfloat16"
    if keras.backend.backend() == "jax":
        return "float32"
    flags = Path("/proc/cpuinfo")
    return "mixed_bfloat16" if flags.exists() and "avx512_bf16" in flags.read_text() else "float32"
