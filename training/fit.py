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
from training.network import build, seed_layers, trainable
from training.recipe import Recipe
from training.splits import Split

log = logging.getLogger(__name__)


@dataclass
class State:
    """What a run has reached: all that a resumed run must know besides the weights."""

    recipe: str
    page: str  # the recipe's fingerprint: what it said when the run began
    seed: int
    epochs: int
    precision: str
    data: str  # the content hash of the data set
    command: str  # what started the run
    epoch: int = 0  # whole epochs done
    best_epoch: int = 0
    best_accuracy: float = -1.0
    seconds: float = 0.0  # of training, validation included
    published: str = ""  # the folder
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
        accuracy = float(logs.get("val_accuracy", state.best_accuracy))
        if accuracy > state.best_accuracy or "val_accuracy" not in logs:
            state.best_accuracy, state.best_epoch = accuracy, epoch + 1
            save_weights(self._network, self._run / "best.weights.h5")
        save_weights(self.model, checkpoint(self._run, state.epoch))
        write_state(self._run, state)
        checkpoint(self._run, epoch).unlink(missing_ok=True)


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
    """Train, or go on from the run folder's checkpoint; ``best.weights.h5`` there is the result:
    the last epoch's where there is no validation accuracy to choose by.

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
    state = _resume(run, state, model)
    if state.epoch < state.epochs:
        model.fit(
            batches,
            shuffle=False,  # they are shuffled already, in a way that a resumed run repeats
            validation_data=Batches(data.validation, 256) if len(data.validation.labels) else None,
            initial_epoch=state.epoch,
            epochs=state.epochs,
            callbacks=[Checkpoint(run, state, network, batches)],
            verbose=verbose,
        )
    keras.config.set_dtype_policy("float32")
    return state


def _resume(run: Path, fresh: State, model: keras.Model) -> State:
    if not (run / "state.json").exists():
        return fresh
    state = read_state(run)
    for key in ("recipe", "page", "seed", "epochs", "precision", "data"):
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
        UsageError: there is no run, it has not ended its first epoch, or it cannot be read.
    """
    if not (run / "state.json").exists():
        raise UsageError(f"No run in {run}: `train` makes it.")
    try:
        return State(**json.loads((run / "state.json").read_text()))
    except (ValueError, TypeError) as exc:
        raise UsageError(f"{run} holds no readable run: {exc}. Remove that folder.") from exc


def write_state(run: Path, state: State) -> None:
    """Note what a run has reached, in one step that cannot be seen half done."""
    partial = run / f"partial-{os.getpid()}-state.json"
    partial.write_text(json.dumps(asdict(state), indent=1))
    partial.replace(run / "state.json")


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
