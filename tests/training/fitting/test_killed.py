"""Runs of real processes: killed, stopped, out of disk, and two at once."""

import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from tests.tiny_data import squares, write_idx, write_mnist
from training.__main__ import main
from training.fitting.checkpoints import read_state

RUN = "digits_adadelta-seed1"
EPOCHS = 4


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write digits for about a second an epoch: 3,200 to train on, 25 steps."""
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder / "mnist")
    images, labels = squares(400, side=28, channels=1, seed=5)
    write_idx(folder / "mnist/train-images-idx3-ubyte.gz", images[..., 0])
    write_idx(folder / "mnist/train-labels-idx1-ubyte.gz", labels)
    return folder


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(arguments(folder, data_dir)) == 0
    return folder / "runs" / RUN


def arguments(folder: Path, data_dir: Path, *, command: str = "train") -> list[str]:
    places = [f"--{name}={folder / name}" for name in ("models", "runs")]
    train = [f"--epochs={EPOCHS}", "--no-publish"] if command == "train" else []
    return [command, "digits_adadelta", f"--data-dir={data_dir}", *places, *train]


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Limit the bytes of a file, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "training", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_an_epoch(process: subprocess.Popen[str]) -> None:
    """Wait until Keras reports the end of an epoch."""
    assert process.stdout
    for line in process.stdout:
        if "val_accuracy" in line:
            return
    pytest.fail(f"ended before its first epoch: {process.communicate()[1]}")


def same(run: Path, other: Path) -> bool:
    """Return True if two finished runs have the same weights, to the bit, and the same history."""
    one, two = read_state(run), read_state(other)
    files = ("best.weights.h5", f"epoch-{EPOCHS}.weights.h5")
    return (one.history, one.best_epoch) == (two.history, two.best_epoch) and all(
        numbers(run / name) == numbers(other / name) for name in files
    )


def numbers(file: Path) -> dict[str, bytes]:
    """Return all numbers of a checkpoint, the optimiser's included."""
    found: dict[str, bytes] = {}

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item).tobytes()

    with h5py.File(file) as held:
        held.visititems(note)
    return found


@pytest.mark.slow
def test_a_run_killed_repeatedly_ends_as_an_uninterrupted_one(
    whole: Path, data_dir: Path, tmp_path: Path
) -> None:
    run, before, seed = tmp_path / "runs" / RUN, 0, random.randrange(1_000_000)
    chance = random.Random(seed)
    while before < EPOCHS - 1:
        process = start(arguments(tmp_path, data_dir))
        wait_for_an_epoch(process)
        time.sleep(chance.uniform(0, 1))
        process.kill()
        process.communicate()
        reached = read_state(run).epoch
        assert before <= reached, seed  # the epoch that had just ended may be lost
        before = reached
    assert main(arguments(tmp_path, data_dir)) == 0
    assert same(run, whole)


def seconds_of(run: Path, epoch: int, process: subprocess.Popen[str]) -> float:
    """Return the seconds of training after that many epochs."""
    while process.poll() is None and read_state(run).epoch < epoch:
        time.sleep(0.01)
    return read_state(run).seconds


@pytest.mark.slow
def test_sigterm_saves_the_running_epoch_and_exits_75(
    whole: Path, data_dir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / RUN
    process = start(arguments(tmp_path, data_dir))
    wait_for_an_epoch(process)
    # The first epoch compiles, so it does not predict the time of the third.
    one, two = (seconds_of(run, epoch, process) for epoch in (1, 2))
    time.sleep((two - one) / 2)
    process.terminate()
    _, errors = process.communicate(timeout=30)  # which Kubernetes grants a pod
    assert process.returncode == 75, errors
    assert "Stopped by SIGTERM. The same command resumes" in errors
    assert (read_state(run).epoch, read_state(run).step) > (2, 0)
    assert main(arguments(tmp_path, data_dir)) == 0
    assert same(run, whole)


@pytest.mark.slow
def test_a_second_run_in_a_folder_stops_at_once_and_the_first_continues(
    whole: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = start(arguments(tmp_path, data_dir))
    wait_for_an_epoch(first)
    first.send_signal(signal.SIGSTOP)  # it will not end while the others try
    for command in ("train", "export"):
        assert main(arguments(tmp_path, data_dir, command=command)) == 1
        assert "training: Another process uses" in capsys.readouterr().err
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate()
    assert first.returncode == 0, errors
    assert same(tmp_path / "runs" / RUN, whole)


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
    whole: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / RUN
    process = start(arguments(tmp_path, data_dir))
    wait_for_an_epoch(process)
    process.kill()
    process.communicate()
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with small_files(100_000):
        assert main(arguments(tmp_path, data_dir)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "training: Cannot write" in error
    assert "File too large. Expected: a writable folder with free space" in error
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    assert after == {name: data for name, data in before.items() if "partial" not in name}
    assert main(arguments(tmp_path, data_dir)) == 0
    assert same(run, whole)


@pytest.mark.slow
def test_a_disk_that_fills_up_while_publishing_leaves_no_version(
    whole: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").symlink_to(whole.parent)
    with small_files(100_000):
        assert main(arguments(tmp_path, data_dir, command="export")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "could not be written: [Errno 27] File too large" in error
    assert list((tmp_path / "models").iterdir()) == []
