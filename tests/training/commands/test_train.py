from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.tiny_data import write_tiny_data
from training import lock
from training.__main__ import main
from training.commands import train
from training.fitting import checkpoints, launcher
from training.fitting.checkpoints import State

RUN = "digits_adadelta-seed1"


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments of a command that trains no step."""
    write_tiny_data(tmp_path / "data-dir")
    monkeypatch.setattr(
        "training.fitting.fit.fit", lambda *_, **__: State("", "", 1, 1, "", "", "")
    )
    places = [f"--{name}={tmp_path / name}" for name in ("data-dir", "models", "runs")]
    return ["train", "digits_adadelta", *places]


def test_a_command_locks_its_run_folder_once(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[Path] = []
    take = lock.take

    def counted(path: Path, *, waiting: str = "") -> object:
        locked.append(path)
        return take(path, waiting=waiting)

    monkeypatch.setattr(lock, "take", counted)
    monkeypatch.setattr(train, "_publish", lambda *_: None)
    assert main(arguments) == 0
    assert locked == [tmp_path / "runs" / RUN / "lock"]


@pytest.mark.parametrize("command", ["train", "export", "reproduce", "audit"])
def test_a_run_of_another_recipe_is_refused_before_the_data_are_read(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {"reproduce": f"reproduce/{RUN}", "audit": "digits_adadelta-audit-seed1-fold2of2"}
    run = tmp_path / "runs" / folders.get(command, RUN)
    run.mkdir(parents=True)
    checkpoints.write_state(run, State("digits_adadelta", "other", 1, 12, "float32", "", ""))
    places = [f"--data-dir={tmp_path / 'none'}", f"--runs={tmp_path / 'runs'}"]
    places += [f"--models={tmp_path}"] if command in ("train", "export") else []
    places += ["--folds=2"] if command == "audit" else []
    assert main([command, "digits_adadelta", *places]) == 2
    error = capsys.readouterr().err
    assert "began with another recipe" in error or "has changed since" in error
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("extra", [[], ["--extra=labelled"]], ids=str)
def test_a_run_on_jax_is_published_by_another_process_after_its_lock_is_released(
    arguments: list[str], extra: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Sequence[str], Mapping[str, str]]] = []

    def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
        with checkpoints.locked(tmp_path / "runs" / RUN):
            started.append((command, environment))

    monkeypatch.setattr(launcher, "run", run)
    monkeypatch.setattr("training.data.feedback_images.find", lambda *_, **__: [])
    monkeypatch.setattr("training.data.feedback_images.add", lambda data, *_, **__: data)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert main([*arguments, *extra]) == 0
    ((command, environment),) = started
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "models", "data-dir")]
    assert command == ["export", "digits_adadelta", "--seed=1", *places, *extra]
    assert environment["KERAS_BACKEND"] == "tensorflow"
