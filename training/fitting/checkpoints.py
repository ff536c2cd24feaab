"""The run folder: what a run has reached, kept so that neither a kill nor a full disk leaves half a
file.

Knows files and how Keras saves weights; knows nothing of how training runs.

A run folder holds ``state.json`` (which epochs are done, which checkpoint holds them, and the
history), the checkpoints, each with weights and optimiser: ``epoch-<n>.weights.h5`` after the last
two whole epochs, ``epoch-<n>-step-<m>.weights.h5`` where the run was stopped in the middle of one;
``best.weights.h5`` (the network after the epoch with the highest validation accuracy) and ``lock``,
held by the process that is at work there.
"""

import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import lock
from training.errors import RunFailed, RunMismatch, UsageError
from training.fitting.signals import SIGTERM

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

SAME = ("recipe", "page", "seed", "epochs", "precision", "data")  # or it is another run
SEAL = b"sha256:"  # before the check sum that stands behind the weights of a file
DAMAGED = (OSError, RuntimeError, KeyError, ValueError, UserWarning)  # as Keras and h5py tell it


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
    epoch: int = 0  # whole epochs done, validation included
    step: int = 0  # of the next epoch, done; all of them where only its validation is missing
    checkpoint: str = ""  # the file that holds this
    passing: list[Any] = field(default_factory=list)  # after such a step: see `network.passing`
    best_epoch: int = 0
    best_accuracy: float = -1.0
    seconds: float = 0.0  # of training, validation included
    published: str = ""  # the SHA-256 of the file that was made of it
    history: dict[str, list[float]] = field(default_factory=dict)


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Make the folder, and keep every other process out of it.

    Raises:
        RunFailed: another process is at work in it, or it cannot be written.
    """
    with _writing(run):
        run.mkdir(parents=True, exist_ok=True)
        try:
            file = lock.take(run / "lock")
        except BlockingIOError as exc:
            raise RunFailed(
                f"Another process is at work in {run}. Expected a run folder of our own: wait for "
                "that process, or name another folder with --runs."
            ) from exc
    with file:
        for left in run.glob("partial-*"):  # of a process that was killed
            left.unlink(missing_ok=True)
        yield


def begun(run: Path, fresh: State) -> State:
    """What the folder says that this run has reached; ``fresh`` where it holds none.

    Raises:
        RunFailed: it cannot be read.
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


def checkpoint(epoch: int, step: int = 0) -> str:
    """The name of the file that holds a run after that many epochs and steps."""
    return f"epoch-{epoch}{f'-step-{step}' if step else ''}.weights.h5"


def best(run: Path) -> Path:
    """Where the run keeps its result: the network after its best epoch."""
    return run / "best.weights.h5"


def restore(run: Path, state: State, model: "keras.Model") -> State:
    """Load the last checkpoint or, where it is damaged, the one before; what is reached by it.

    Raises:
        RunFailed: there is none that can be read.
    """
    wanted = state.checkpoint
    earlier = {checkpoint(epoch): epoch for epoch in range(state.epoch, 0, -1)}
    for name in dict.fromkeys([wanted, *(name for name in earlier if (run / name).exists())]):
        try:
            load_weights(model, run / name)
        except RunFailed as exc:
            log.warning("%s", exc)
        else:
            return state if name == wanted else _rewound(state, earlier[name])
    raise RunFailed(f"{run} holds no checkpoint that can be read. Remove that folder: train anew.")


def _rewound(state: State, epoch: int) -> State:
    """The state as it was after an earlier epoch, but for the best network, which is kept."""
    return replace(
        state,
        epoch=epoch,
        step=0,
        checkpoint=checkpoint(epoch),
        passing=[],
        history={name: values[:epoch] for name, values in state.history.items()},
    )


def load_best(network: "keras.Model", run: Path) -> None:
    """Load the run's result.

    Raises:
        RunFailed: it is damaged, or of another network.
    """
    try:
        load_weights(network, best(run))
    except RunFailed as exc:
        raise RunFailed(f"{exc} Remove {run}: train anew.") from exc


def load_weights(model: "keras.Model", path: Path) -> None:
    """Load what ``save_weights`` wrote.

    Raises:
        Preempted: SIGTERM came meanwhile.
        RunFailed: it is damaged, or of another network.
    """
    _check_seal(path)
    SIGTERM.hold()  # Keras would take what it raises for damage
    try:
        with SIGTERM.heard(), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a part that does not fit
            model.load_weights(path)
    except DAMAGED as exc:
        reason = str(exc).strip().partition("\n")[0]
        raise RunFailed(f"{path} is damaged: {reason}. Expected: a whole checkpoint.") from exc


def _check_seal(path: Path) -> None:
    """HDF5 does not tell that a bit of a weight has changed. Without a seal it is left to it."""
    try:
        data = path.read_bytes()
    except OSError:
        return  # which is told by who opens it
    weights, seal = data[:-SEALED], data[-SEALED:]
    if seal.startswith(SEAL) and seal != _seal(weights):
        raise RunFailed(f"{path} is damaged: its check sum differs. Expected: a whole checkpoint.")


def _seal(weights: bytes | memoryview) -> bytes:
    return SEAL + hashlib.sha256(weights).digest()


SEALED = len(_seal(b""))


def read_state(run: Path) -> State:
    """What the run in this folder has reached.

    Raises:
        UsageError: there is no run.
        RunFailed: it cannot be read.
    """
    if not (run / "state.json").exists():
        raise UsageError(f"No run in {run}: `train` makes it.")
    try:
        return State(**json.loads((run / "state.json").read_text()))
    except (OSError, ValueError, TypeError) as exc:
        raise RunFailed(f"{run} holds no readable run: {exc}. Remove that folder.") from exc


def published(state: State, versions: Path) -> Path | None:
    """Which of a model's ``versions`` was made of this run."""
    files = versions.glob("[1-9]*/model.onnx") if state.published else ()
    return next((file.parent for file in files if digest(file) == state.published), None)


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def save(run: Path, state: State, model: "keras.Model") -> None:
    """Write ``state.checkpoint``, then the note that it is there, and let go of older ones."""
    save_weights(model, run / state.checkpoint)
    write_state(run, state)
    kept = {state.checkpoint, checkpoint(state.epoch)}
    for path in run.glob("epoch-*.weights.h5"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def write_state(run: Path, state: State) -> None:
    """Note what a run has reached."""
    write(run / "state.json", json.dumps(asdict(state), indent=1).encode())


def save_weights(model: "keras.Model", path: Path) -> None:
    """Write all weights of a model, its optimiser's included, and a seal, which HDF5 ignores."""
    file = _InMemory()
    model.save_weights(file)
    write(path, file.getbuffer(), _seal(file.getbuffer()))


class _InMemory(io.BytesIO):
    """HDF5 on its way to a file: on a full disk its library would end the process by SIGSEGV."""

    def __str__(self) -> str:
        return "memory.weights.h5"  # Keras asks for the ending


def write(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file beside its place and rename it: a step that cannot be seen half done."""
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())  # or a machine that stops might keep the name alone
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise RunFailed(
            f"Cannot write {path}: {exc.strerror or exc}. Expected: a folder with room that "
            "is open to us. What was there before is kept; the same command goes on from it."
        ) from exc
