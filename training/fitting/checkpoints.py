"""The run folder, kept so that neither a kill nor a full disk leaves a partial file.

Knows files and how Keras saves weights; knows nothing of how training runs.

A run folder holds ``state.json`` (the epochs done, the checkpoint that holds them, the history),
the checkpoints with weights and optimiser (``epoch-<n>.weights.h5`` after the last two whole
epochs, ``epoch-<n>-step-<m>.weights.h5`` if the run was stopped within an epoch),
``best.weights.h5`` (the network after the epoch with the highest validation accuracy) and ``lock``,
held by the process that uses the folder.
"""

import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import lock
from training.errors import RunFailed, RunMismatch, UsageError, translated
from training.fitting.signals import SIGTERM

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

IDENTITY = ("recipe", "page", "seed", "epochs", "precision", "data")  # else it is another run
SEAL = b"sha256:"  # before the check sum at the end of a file of weights
DAMAGED = (OSError, RuntimeError, KeyError, ValueError, UserWarning)  # as Keras and h5py raise


@dataclass
class State:
    """The progress of a run: everything that a resumed run needs besides the weights."""

    recipe: str
    page: str  # the recipe's fingerprint when the run began
    seed: int
    epochs: int
    precision: str
    data: str  # the content hash of the data set
    command: str  # that started the run
    epoch: int = 0  # whole epochs done, validation included
    step: int = 0  # of the next epoch, done; all of them if only its validation is missing
    checkpoint: str = ""  # the file that holds this
    passing: list[Any] = field(default_factory=list)  # see `network.transient_state`
    best_epoch: int = 0
    best_accuracy: float = -1.0
    seconds: float = 0.0  # of training, validation included
    published: str = ""  # the SHA-256 of the file that was exported from it
    history: dict[str, list[float]] = field(default_factory=dict)
    # `provenance.source` of its beginning, and of each resumption by other code; runs that began
    # before this was recorded have none
    sources: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""  # when the last whole epoch ended: UTC, ISO 8601


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Create the folder and exclude every other process from it; a command does so once. Raise
    ``RunFailed`` if another process uses the folder, or it cannot be written."""
    with _writing(run):
        run.mkdir(parents=True, exist_ok=True)
        try:
            file = lock.take(run / "lock")
        except BlockingIOError as exc:
            raise RunFailed(
                f"Another process uses {run}. Wait for that process, or name another folder with "
                "--runs."
            ) from exc
    with file:
        for left in run.glob("partial-*"):  # of a killed process
            left.unlink(missing_ok=True)
        yield


def begin(run: Path, fresh: State) -> State:
    """Return the state in the folder, or ``fresh`` if it holds none. Raise ``RunFailed`` if it
    cannot be read, ``RunMismatch`` if it is of another recipe, seed, length, precision or data."""
    state = held(run)
    if state is None:
        return fresh
    _compare(run, state, {key: getattr(fresh, key) for key in IDENTITY})
    return state


def held(run: Path) -> State | None:
    """Return the state in the folder, None if it holds none; raise ``RunFailed`` if it cannot be
    read."""
    return read_state(run) if (run / "state.json").exists() else None


def check(run: Path, **wanted: object) -> None:
    """Compare values with those that the run in the folder, if any, began with. Raise
    ``RunMismatch`` if one differs, ``RunFailed`` if they cannot be read."""
    if state := held(run):
        _compare(run, state, wanted)


def _compare(run: Path, state: State, wanted: Mapping[str, object]) -> None:
    for key, value in wanted.items():
        if (began := getattr(state, key)) != value:
            other = "another recipe" if key == "page" else f"{key} {began!r}, not {value!r}"
            raise RunMismatch(
                f"{run} began with {other}. Delete that folder to start over, or name another "
                "with --runs."
            )


def finished(run: Path, name: str, page: str) -> State:
    """Return the state of a finished run of a recipe, by its name and fingerprint. Raise
    ``UsageError`` if there is none or it is not finished, ``RunMismatch`` if the recipe has changed
    since the run began, ``RunFailed`` if it cannot be read."""
    state = read_state(run)
    if state.page != page:
        raise RunMismatch(
            f"The recipe {name} has changed since {run} began. Delete that folder and train again."
        )
    if state.epoch < state.epochs:
        raise UsageError(
            f"{run} has done {state.epoch} of {state.epochs} epochs. Expected: a finished run; "
            "`train` continues it."
        )
    return state


def checkpoint(epoch: int, step: int = 0) -> str:
    """Return the name of the file that holds a run after that many epochs and steps."""
    return f"epoch-{epoch}{f'-step-{step}' if step else ''}.weights.h5"


def best(run: Path) -> Path:
    """Return the path of the run's result: the network after its best epoch."""
    return run / "best.weights.h5"


def restore(run: Path, state: State, model: "keras.Model") -> State:
    """Load the last checkpoint or, if it is damaged, the one before; return the state it holds.
    Raise ``RunFailed`` if none can be read."""
    wanted = state.checkpoint
    earlier = {checkpoint(epoch): epoch for epoch in range(state.epoch, 0, -1)}
    for name in dict.fromkeys([wanted, *(name for name in earlier if (run / name).exists())]):
        try:
            load_weights(model, run / name)
        except RunFailed as exc:
            log.warning("%s", exc)
        else:
            state = state if name == wanted else _rewound(state, earlier[name])
            done = state.recipe, state.epoch, state.epochs, state.step
            log.info("resuming %s after epoch %d of %d and %d steps of the next", *done)
            return state
    raise RunFailed(f"{run} holds no readable checkpoint. Delete {run} to start over.")


def _rewound(state: State, epoch: int) -> State:
    """Return the state as it was after an earlier epoch, except for the best network."""
    return replace(
        state,
        epoch=epoch,
        step=0,
        checkpoint=checkpoint(epoch),
        passing=[],
        history={name: values[:epoch] for name, values in state.history.items()},
    )


def load_best(network: "keras.Model", run: Path) -> None:
    """Load the run's result; raise ``RunFailed`` if it is damaged, or of another network."""
    try:
        load_weights(network, best(run))
    except RunFailed as exc:
        raise RunFailed(f"{exc} Delete {run} to start over.") from exc


def load_weights(model: "keras.Model", path: Path) -> None:
    """Load a file of ``save_weights``; raise ``RunFailed`` if it is damaged or of another network,
    ``Preempted`` if SIGTERM was received in the meantime."""
    _check_seal(path)
    SIGTERM.hold()  # Keras would turn its exception into a report of damage
    try:
        with SIGTERM.released_at_end(), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of a layer that does not match
            model.load_weights(path)
    except DAMAGED as exc:
        reason = str(exc).strip().partition("\n")[0]
        raise RunFailed(f"{path} is damaged: {reason}. Expected: a whole checkpoint.") from exc


def _check_seal(path: Path) -> None:
    """Check the seal, if there is one: HDF5 does not detect a flipped bit of a weight."""
    try:
        data = path.read_bytes()
    except OSError:
        return  # opening it reports the reason
    weights, seal = data[:-SEALED], data[-SEALED:]
    if seal.startswith(SEAL) and seal != _seal(weights):
        raise RunFailed(f"{path} is damaged: its check sum differs. Expected: a whole checkpoint.")


def _seal(weights: bytes | memoryview) -> bytes:
    return SEAL + hashlib.sha256(weights).digest()


SEALED = len(_seal(b""))


def read_state(run: Path) -> State:
    """Return the state of the run in a folder; raise ``UsageError`` if there is none, ``RunFailed``
    if it cannot be read."""
    if not (run / "state.json").exists():
        raise UsageError(f"No run in {run}. `train` makes it.")
    try:
        fields = json.loads((run / "state.json").read_text())
        seal = fields.pop("sha256", None)
        state = State(**fields)
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise RunFailed(f"{run} holds no readable run: {exc}. Delete it to start over.") from exc
    if seal is None:
        _warn_of_no_seal(run)
    elif seal != _sum_of(fields):
        raise RunFailed(
            f"{run}/state.json is damaged: its check sum differs. Delete {run} to start over."
        )
    return state


@cache
def _warn_of_no_seal(run: Path) -> None:
    """Warn once: a command reads the state several times."""
    log.warning("%s/state.json has no check sum: an older version wrote it", run)


def _sum_of(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def save(run: Path, state: State, model: "keras.Model") -> None:
    """Write ``state.checkpoint``, then the state that names it, and delete older checkpoints."""
    save_weights(model, run / state.checkpoint)
    write_state(run, state)
    kept = {state.checkpoint, checkpoint(state.epoch)}
    for path in run.glob("epoch-*.weights.h5"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def write_state(run: Path, state: State) -> None:
    """Write the state of a run, with a check sum: a flipped digit could skip an epoch."""
    fields = asdict(state)
    sealed = {**fields, "sha256": _sum_of(fields)}
    write(run / "state.json", json.dumps(sealed, indent=1).encode())


def save_weights(model: "keras.Model", path: Path) -> None:
    """Write all weights of a model, its optimiser's included, and a seal, which HDF5 ignores."""
    file = _InMemory()
    model.save_weights(file)
    write(path, file.getbuffer(), _seal(file.getbuffer()))


class _InMemory(io.BytesIO):
    """A buffer for HDF5, whose library ends the process by SIGSEGV on a full disk."""

    def __str__(self) -> str:
        return "memory.weights.h5"  # Keras checks the suffix


def write(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file under another name and rename it, so that it is never seen half written; raise
    ``RunFailed`` if it cannot be written."""
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())  # a machine that stops might keep the name alone
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _writing(path: Path) -> AbstractContextManager[None]:
    expected = (
        "Expected: a writable folder with free space. Earlier checkpoints are kept; the same "
        "command resumes."
    )
    return translated(RunFailed, f"Cannot write {path}", expected)
