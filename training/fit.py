"""Train one recipe on one data set: seed, precision, checkpoint after every epoch, resume, best
weights kept.

Knows Keras, on any backend; knows nothing of files but the run folder, and nothing of export or
reports.

A run folder holds ``epoch-<n>.weights.h5`` (weights and optimiser after the last
whole epoch), ``best.weights.h5`` (the network after the epoch with the highest validation
accuracy) and ``state.json`` (which epochs these are, and the history).
"""

import json
import logging
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.datasets import Dataset
from training.errors import RunMismatch, UsageError
from training.recipe import Recipe
from training.splits import Split

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "mixed_bfloat16")


@dataclass
class State:
    """What a run has reached: all that a resumed run must know besides the weights."""

    recipe: str
    seed: int
    epochs: int
    data: str  # the content hash of the data set
    epoch: int = 0  # whole epochs done
    best_epoch: int = 0
    best_accuracy: float = -1.0
    seconds: float = 0.0  # of training, validation included
    precision: str = ""
    history: dict[str, list[float]] = field(default_factory=dict)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """uint8 batches of a split: all of it in order, or, where a seed is given, whole batches
    shuffled by seed and epoch.

    A short last batch would weigh more than it should in the gradient: training drops it.
    """

    def __init__(self, split: Split, size: int, *, seed: int | None = None) -> None:
        super().__init__()
        self._split, self._size, self._seed = split, size, seed
        self.start_epoch(0)

    def __len__(self) -> int:
        count = len(self._split.labels)
        whole = count // self._size if self._seed is not None else 0
        return whole or -(-count // self._size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        chosen = self._order[index * self._size : (index + 1) * self._size]
        return self._split.images[chosen], self._split.labels[chosen]

    def start_epoch(self, epoch: int) -> None:
        """Shuffle for that epoch. Keras' own hook runs once more than there are epochs, so a
        resumed run could not rely on it."""
        self._order = np.arange(len(self._split.labels))
        if self._seed is not None:
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._order)


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
        _seed_layers(self.model, (self._state.seed, epoch))
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
            save_weights(self._network, self._run / "best.weights.h5")
        save_weights(self.model, checkpoint(self._run, state.epoch))
        _write(self._run / "state.json", json.dumps(asdict(state), indent=1))
        checkpoint(self._run, epoch).unlink(missing_ok=True)


def build(recipe: Recipe, classes: int) -> keras.Model:
    """The network of a recipe under the precision policy in force: uint8 ``(N, H, W, C)`` to
    float32 logits ``(N, classes)``."""
    image = keras.Input(recipe.shape, dtype="uint8", name="image")
    return keras.Model(image, recipe.network(image, classes), name=recipe.name)


def fit(
    recipe: Recipe,
    data: Dataset,
    *,
    run: Path,
    seed: int = 1,
    epochs: int | None = None,
    precision: str = "auto",
    verbose: int = 1,
) -> State:
    """Train, or go on from the run folder's checkpoint; ``best.weights.h5`` there is the result.

    Raises:
        RunMismatch: the run folder holds another recipe, seed, length or data.
    """
    run.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(_policy(precision))
    state = State(recipe.name, seed, epochs or recipe.epochs, data.content_hash)
    state.precision = keras.config.dtype_policy().name
    network = build(recipe, len(data.labels))
    batches = Batches(data.train, recipe.batch_size, seed=seed)
    model = _trainable(recipe, network, steps=len(batches) * state.epochs)
    state = _resume(run, state, model)
    if state.epoch < state.epochs:
        model.fit(
            batches,
            shuffle=False,  # they are shuffled already, in a way that a resumed run repeats
            validation_data=Batches(data.validation, 256),
            initial_epoch=state.epoch,
            epochs=state.epochs,
            callbacks=[Checkpoint(run, state, network, batches)],
            verbose=verbose,
        )
    keras.config.set_dtype_policy("float32")
    return state


def _trainable(recipe: Recipe, network: keras.Model, *, steps: int) -> keras.Model:
    """The network behind its augmentation, compiled; its weights are the network's own."""
    image = keras.Input(recipe.shape, dtype="uint8", name="image")
    model = keras.Model(image, network(_augmented(recipe, image)))
    optimizer = recipe.optimizer(steps)
    model.compile(
        optimizer,
        loss=SmoothedCrossEntropy(recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile="auto"
        if keras.backend.backend() == "jax"
        else False,  # XLA on a CPU: 14 times slower
    )
    optimizer.build(model.trainable_variables)  # so that a checkpoint finds its slots
    return model


def _seed_layers(model: keras.Model, seed: tuple[int, int]) -> None:
    """Give dropout and augmentation the random state of this epoch: Keras saves it with no weights,
    and a resumed run must draw as an uninterrupted one."""
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    words = np.random.SeedSequence(seed).generate_state(2 * len(states))
    for variable, state in zip(states, words.reshape(-1, 2), strict=True):
        variable.assign(state)


def _augmented(recipe: Recipe, image: Any) -> Any:
    steps = recipe.augment()
    if not steps:
        return image
    x = keras.ops.cast(image, "float32")
    for layer in steps:
        layer.dtype_policy = "float32"
        x = layer(x)
    return keras.ops.cast(keras.ops.clip(keras.ops.round(x), 0, 255), "uint8")


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


def _resume(run: Path, fresh: State, model: keras.Model) -> State:
    if not (run / "state.json").exists():
        return fresh
    state = read_state(run)
    for key in ("recipe", "seed", "epochs", "data"):
        if getattr(state, key) != getattr(fresh, key):
            raise RunMismatch(
                f"{run} holds a run with {key} {getattr(state, key)!r}, "
                f"not {getattr(fresh, key)!r}. Remove that folder or name another with --runs."
            )
    model.load_weights(checkpoint(run, state.epoch))
    log.info("resuming %s after epoch %d of %d", state.recipe, state.epoch, state.epochs)
    return state


def checkpoint(run: Path, epoch: int) -> Path:
    """Where the run keeps everything it needs to go on after that many epochs."""
    return run / f"epoch-{epoch}.weights.h5"


def read_state(run: Path) -> State:
    """What the run in this folder has reached.

    Raises:
        UsageError: there is no run, or it has not ended its first epoch.
    """
    if not (run / "state.json").exists():
        raise UsageError(f"No run in {run}: `train` makes it.")
    return State(**json.loads((run / "state.json").read_text()))


def _policy(precision: str) -> str:
    """``auto`` is bfloat16 where the processor multiplies it in hardware: half the time of float32,
    and the same accuracy."""
    if precision != "auto":
        return precision
    flags = Path("/proc/cpuinfo")
    return "mixed_bfloat16" if flags.exists() and "avx512_bf16" in flags.read_text() else "float32"


def save_weights(model: keras.Model, path: Path) -> None:
    """Write all weights of a model, its optimiser's included, in one step that cannot be seen half
    done."""
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    model.save_weights(partial)
    partial.replace(path)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    partial.write_text(text)
    partial.replace(path)
