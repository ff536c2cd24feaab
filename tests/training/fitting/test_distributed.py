import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.tiny_data import squares, write_idx, write_tiny_data
from tests.training import tiny
from training.errors import UsageError
from training.fitting.batches import Batches
from training.fitting.distributed import Share, shared
from training.modelling.network import build

LOSS, WEIGHTS = 1e-6, 1e-4  # sums in another order; Adam divides by small gradients


def shares(batches: Batches, hosts: int) -> list[Share]:
    """Return the share of every host; a process has one distribution, so it is faked."""
    distributions = [
        SimpleNamespace(num_model_replicas=hosts, num_processes=hosts, data_shard_id=index)
        for index in range(hosts)
    ]
    return [Share(batches, each) for each in distributions]


def test_hosts_feed_the_global_batch_in_parts() -> None:
    batches = Batches(tiny.split(130, 1), 32, seed=1)
    parts = [share[1] for share in shares(batches, 4)]
    images, labels = batches[1]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), images)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)
    assert all((part[2] == 1).all() for part in parts)


@pytest.mark.parametrize("hosts", [2, 3, 4])
def test_means_over_padded_batches_are_those_of_the_images(hosts: int) -> None:
    batches = Batches(tiny.split(61, 1), 16)
    parts = [share[step] for step in range(len(batches)) for share in shares(batches, hosts)]
    labels, weights = (np.concatenate([part[n] for part in parts]) for n in (1, 2))
    assert len({part[1].shape for part in parts[:hosts]}) == 1
    assert np.count_nonzero(weights) == 61
    assert weights.mean() == pytest.approx(1)
    assert (labels * weights).mean() == pytest.approx(tiny.split(61, 1).labels.mean())


def test_training_batches_are_not_padded() -> None:
    with pytest.raises(UsageError, match="3 devices on 3 hosts cannot divide batches of 32 images"):
        shares(Batches(tiny.split(130, 1), 32, seed=1), 3)


def test_one_host_feeds_whole_batches() -> None:
    batches = Batches(tiny.split(130, 1), 32)
    assert shared(batches) is batches


def free_port() -> int:
    """Return a port outside the range of port 0, which other tests draw from at the same time."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def started(*commands: list[str], log: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes with a log each; stop them at the end of the block."""
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    processes = []
    try:
        for index, command in enumerate(commands):
            with (log / f"host-{index}.log").open("w") as file:
                processes.append(
                    subprocess.Popen(command, stdout=file, stderr=file, text=True, env=environment)
                )
        yield processes
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def train_tiny(folder: Path, count: int) -> Path:
    """Train the tiny recipe on that many hosts; return the run folder of host 0."""
    script = ["env", "KERAS_BACKEND=jax", sys.executable]
    script += ["-W", "error::DeprecationWarning:jax", "-m", "tests.training.one_host"]
    runs = [folder / f"run-{index}" for index in range(count)]
    port = str(free_port())
    commands = [[*script, str(run), str(count), str(n), port] for n, run in enumerate(runs)]
    with started(*commands, log=folder) as processes:
        codes = [process.wait(timeout=600) for process in processes]
    assert codes == [0] * count, (folder / "host-0.log").read_text()
    return runs[0]


def state(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "state.json").read_text())
    return loaded


def weights(run: Path) -> list[np.ndarray]:
    network = build(tiny.RECIPE, 2)
    network.load_weights(run / "best.weights.h5")
    return [np.asarray(weight) for weight in network.weights]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tiny(tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_hosts_learn_the_same_as_one(alone: Path, tmp_path: Path, count: int) -> None:
    together = train_tiny(tmp_path, count)
    expected, got = state(alone)["history"], state(together)["history"]
    assert expected.keys() == got.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=LOSS, err_msg=name)
    for a, b in zip(weights(alone), weights(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=WEIGHTS, atol=WEIGHTS)


def commands(folder: Path, *options: str) -> list[list[str]]:
    """Return the commands of two hosts, with host 0's folders in ``folder``."""
    places = [f"--{name}={folder / name}" for name in ("data-dir", "models", "runs")]
    addresses = f"--hosts=127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    train = [sys.executable, "-m", "training", "train", "digits_conv5", addresses, *places]
    return [[*train, f"--host-index={index}", *options] for index in range(2)]


def wait_for_epoch(run: Path, epoch: int, processes: list[subprocess.Popen[str]]) -> None:
    while not (run / "state.json").exists() or state(run)["epoch"] < epoch:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)


def worker(process: subprocess.Popen[str]) -> int:
    """Return the process that does the work of a host."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return int(children.split()[0])


@pytest.mark.slow
@pytest.mark.parametrize("loss", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "silent"])
def test_a_lost_host_ends_the_job_and_the_same_command_resumes(
    tmp_path: Path, loss: signal.Signals
) -> None:
    write_tiny_data(tmp_path / "data-dir")
    run = tmp_path / "runs/digits_conv5-seed1"
    both = commands(tmp_path, "--epochs=5000", "--no-publish")
    with started(*both, log=tmp_path) as processes:
        wait_for_epoch(run, 1, processes)
        os.kill(worker(processes[1]), loss)
        assert processes[0].wait(timeout=300) == 75
    assert "Another host has ended or never joined" in (tmp_path / "host-0.log").read_text()
    if loss == signal.SIGSTOP:
        return  # it resumes in the same way
    reached = state(run)["epoch"]
    with started(*both, log=tmp_path) as processes:
        wait_for_epoch(run, reached + 1, processes)
        for process in processes:
            process.terminate()
        assert [process.wait(timeout=120) for process in processes] == [75, 75]
    logs = [(tmp_path / f"host-{index}.log").read_text() for index in range(2)]
    assert all("Stopped by SIGTERM. The same command resumes" in log for log in logs)
    assert f"resuming digits_conv5 after epoch {reached}" in logs[0]


@pytest.mark.slow
def test_host_0_publishes_at_the_end(tmp_path: Path) -> None:
    mnist = write_tiny_data(tmp_path / "data-dir") / "mnist"
    # 260 test images: enough to compare an export; 1,000 of training: few epochs reach the gate
    for stem, each, seed in (("t10k", 26, 9), ("train", 125, 5)):
        images, labels = squares(each, side=28, channels=1, seed=seed)
        write_idx(mnist / f"{stem}-images-idx3-ubyte.gz", images[..., 0])
        write_idx(mnist / f"{stem}-labels-idx1-ubyte.gz", labels)
    with started(*commands(tmp_path, "--epochs=6"), log=tmp_path) as processes:
        codes = [process.wait(timeout=600) for process in processes]
    assert codes == [0, 0], (tmp_path / "host-0.log").read_text()
    assert (tmp_path / "models/digits/1/model.onnx").exists()
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "data-dir",
        "models",
        "runs",
    }
