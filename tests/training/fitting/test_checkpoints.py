import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest

from training.errors import Preempted, RunFailed, UsageError
from training.fitting import checkpoints as runs
from training.fitting.checkpoints import State
from training.fitting.signals import Sigterm


def model() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])


def state(epoch: int, *, step: int = 0, checkpoint: str = "") -> State:
    """Return a run that was best after its second epoch."""
    return State(
        *("tiny", "some-page", 1, 9, "float32", "some-hash", "a command"),
        epoch=epoch,
        step=step,
        checkpoint=checkpoint or runs.checkpoint(epoch),
        best_epoch=2,
        best_accuracy=0.9,
        history={"val_accuracy": [0.5, 0.9, 0.7][:epoch]},
    )


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("epoch-*"))


def same(one: keras.Model, other: keras.Model) -> bool:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_the_last_checkpoint_and_the_one_before_it_are_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        runs.save(tmp_path, state(epoch - 1, checkpoint=runs.checkpoint(epoch)), model())
    assert checkpoints(tmp_path) == ["epoch-2.weights.h5", "epoch-3.weights.h5"]


def test_a_checkpoint_within_an_epoch_is_deleted_after_the_next(tmp_path: Path) -> None:
    runs.save(tmp_path, state(1), model())
    runs.save(tmp_path, state(1, step=5, checkpoint=runs.checkpoint(1, 5)), model())
    assert checkpoints(tmp_path) == ["epoch-1-step-5.weights.h5", "epoch-1.weights.h5"]
    runs.save(tmp_path, state(1, step=9, checkpoint=runs.checkpoint(2)), model())
    assert checkpoints(tmp_path) == ["epoch-1.weights.h5", "epoch-2.weights.h5"]


WEIGHT = np.float32(0.123456).tobytes()


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


DAMAGE: dict[str, Callable[[bytes], bytes] | None] = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "garbage": lambda whole: bytes(range(256)) * 20,
    "zeros inside": lambda whole: whole[:2000] + bytes(len(whole) - 2000),
    "another bit in a weight": lambda whole: whole.replace(WEIGHT, flipped(WEIGHT)),
    "another bit in its seal": lambda whole: whole[:-1] + flipped(whole[-1:]),
    "no file": None,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    damage: Callable[[bytes], bytes] | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = model()
    runs.save(tmp_path, state(2), before)
    after = model()
    after.set_weights([np.full_like(each, 0.123456) for each in after.get_weights()])
    runs.save(tmp_path, state(2, checkpoint=runs.checkpoint(3)), after)
    runs.write_state(tmp_path, state(3))
    last = tmp_path / "epoch-3.weights.h5"
    whole = last.read_bytes()
    last.unlink()
    if damage:
        last.write_bytes(damage(whole))
        assert last.read_bytes() != whole
    read = model()
    reached = runs.restore(tmp_path, runs.read_state(tmp_path), read)
    assert same(read, before)
    assert reached == state(2)
    assert f"{last} is damaged" in caplog.text


def test_weights_without_a_seal_are_accepted(tmp_path: Path) -> None:
    before, read = model(), model()
    before.save_weights(tmp_path / "a.weights.h5")
    runs.load_weights(read, tmp_path / "a.weights.h5")
    assert same(read, before)


def test_a_checkpoint_of_another_network_is_reported(tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])
    runs.save(tmp_path, state(1), other)
    with pytest.raises(RunFailed, match="holds no readable checkpoint") as raised:
        runs.restore(tmp_path, state(1), model())
    assert raised.value.exit_code == 1


def test_a_signal_while_loading_is_not_mistaken_for_damage(
    tmp_path: Path, sigterm: Sigterm, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Signalled(keras.layers.Dense):  # type: ignore[misc]
        def load_own_variables(self, store: object) -> None:
            signal.raise_signal(signal.SIGTERM)
            super().load_own_variables(store)

    monkeypatch.setattr(runs, "SIGTERM", sigterm)
    model = keras.Sequential([keras.Input((2,)), Signalled(1)])
    runs.save_weights(model, tmp_path / "a.weights.h5")
    with pytest.raises(Preempted):
        runs.load_weights(model, tmp_path / "a.weights.h5")


def test_a_damaged_result_is_reported_with_a_remedy(tmp_path: Path) -> None:
    runs.best(tmp_path).write_bytes(b"garbage")
    with pytest.raises(RunFailed, match=rf"is damaged.* Delete {tmp_path} to start over"):
        runs.load_best(model(), tmp_path)


def test_a_state_with_another_digit_is_reported(tmp_path: Path) -> None:
    runs.save(tmp_path, state(2), model())
    file = tmp_path / "state.json"
    file.write_text(file.read_text().replace('"epoch": 2', '"epoch": 3'))
    with pytest.raises(RunFailed, match=rf"damaged: its check sum differs. Delete {tmp_path} to"):
        runs.read_state(tmp_path)


def test_a_state_without_check_sum_and_code_is_accepted_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields = asdict(state(2))
    del fields["sources"], fields["ended"]
    (tmp_path / "state.json").write_text(json.dumps(fields, indent=1))
    assert runs.read_state(tmp_path) == state(2)
    assert "has no check sum: an older version wrote it" in caplog.text


def test_a_folder_without_a_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No run in"):
        runs.read_state(tmp_path)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunFailed, match=r"Cannot write .*file/run: Not a directory"),
        runs.locked(tmp_path / "file/run"),
    ):
        pass


HOLDER = """
import pathlib, sys, time
from training.fitting import checkpoints
with checkpoints.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_run_folder_is_locked_until_its_process_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RunFailed, match="Another process uses"),
            runs.locked(tmp_path),
        ):
            pass
        holder.kill()
    with runs.locked(tmp_path):
        pass


def test_partial_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "partial-17-epoch-3.weights.h5").write_bytes(b"half")
    with runs.locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_full_disk_is_reported_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    before, read = model(), model()
    runs.save(tmp_path, state(1), before)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(RunFailed, match=r"epoch-2.weights.h5: File too large. Expected: a wri"):
            runs.save(tmp_path, state(2), model())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints(tmp_path) == ["epoch-1.weights.h5"]
    assert runs.restore(tmp_path, runs.read_state(tmp_path), read).epoch == 1
    assert same(read, before)
