"""The run folder: what a run has reached, kept so that a kill leaves whole files only.

Knows files and how Keras saves weights; knows nothing of how training runs.

A run folder holds ``epoch-<n>.weights.h5`` (weights and optimiser after the last
whole epoch), ``best.weights.h5`` (the network after the epoch with the highest validation
accuracy) and ``state.json`` (which epochs these are, and the history).
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras

from training.errors import RunMismatch, UsageError

SAME = ("recipe", "page", "seed", "epochs", "precision", "data")  # or it is another run


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


def begun(run: Path, fresh: State) -> State:
    """What the folder says that this run has reached; ``fresh`` where it holds none.

    Raises:
        RunMismatch: it holds another recipe, seed, length, precision or data.
    """
    if not (run / "state.json").exists():
        return fresh
    state = read_state(run)
    for key in SAME:
        if getattr(state, key) != getattr(fresh, key):
            raise RunMismatch(
                f"{run} holds a run with {key} {getattr(state, key)!r}, "
                f"not {getattr(fresh, key)!r}. Remove that folder or name another with --runs."
            )
    return state


def checkpoint(run: Path, epoch: int) -> Path:
    """Where the run keeps everything it needs to go on after that many epochs."""
    return run / f"epoch-{epoch}.weights.h5"


def best(run: Path) -> Path:
    """Where the run keeps its result: the network after its best epoch."""
    return run / "best.weights.h5"


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


def save_weights(model: keras.Model, path: Path) -> None:
    """Write all weights of a model, its optimiser's included, in one step that cannot be seen half
    done."""
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    model.save_weights(partial)
    partial.replace(path)
