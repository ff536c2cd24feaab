"""What TensorBoard and MLflow are told; needs the extra ``track``."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.samples import publish
from tests.training import tiny
from training.__main__ import main
from training.errors import Preempted, UsageError
from training.fitting import tracking
from training.fitting.checkpoints import State
from training.fitting.fit import fit

AWAY = "http://127.0.0.1:9"


def trackers(run: Path, *, tensorboard: Path | None = None) -> list[tracking.Tracker]:
    run.mkdir(parents=True, exist_ok=True)
    return tracking.trackers(tiny.RECIPE, run=run, seed=1, epochs=3, tensorboard=tensorboard)


def train(run: Path, told: list[tracking.Tracker]) -> State:
    return fit(
        tiny.RECIPE,
        tiny.dataset(),
        run=run,
        precision="float32",
        callbacks=told,
        verbose=0,
    )


@pytest.fixture
def mlflow_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MLflow's own store, in files: what is written there is read back by its client."""
    pytest.importorskip("mlflow")
    for name, value in tracking.PATIENCE.items():  # as the tracker does, and undone afterwards
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    return tmp_path / "mlflow"


def test_nothing_is_told_unless_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert trackers(tmp_path) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert trackers(tmp_path) == []


def test_neither_is_imported_unless_asked() -> None:
    code = (
        "import sys; from pathlib import Path; from training import track; from tests.training"
        " import tiny; track.check(); track.trackers(tiny.RECIPE, run=Path('run'), seed=1);"
        " print([name for name in ('mlflow', 'tensorboard') if name in sys.modules])"
    )
    given = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=given
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("options", "uri", "message"),
    [
        (["--tensorboard"], "", "--tensorboard is given, and tensorboard is not installed."),
        ([], AWAY, "MLFLOW_TRACKING_URI is set, and mlflow-skinny is not installed."),
    ],
)
def test_what_is_asked_for_and_not_installed_is_told_at_the_start(
    options: list[str], uri: str, message: str, tmp_path: Path
) -> None:
    # As in an environment that has neither: the search path does not find them.
    code = (
        "import sys, importlib.machinery as m; from training.__main__ import main;"
        "real = m.PathFinder.find_spec;"
        "m.PathFinder.find_spec = staticmethod(lambda name, path=None, target=None:"
        " None if name in ('mlflow', 'tensorboard') else real(name, path, target));"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["train", "digits", "--data-dir", str(tmp_path / "nothing"), *options]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "DATA_MIRROR": AWAY},
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "extra `track`" in done.stderr


def test_tensorboard_gets_every_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    state = train(tmp_path / "run", trackers(tmp_path / "run", tensorboard=tmp_path / "logs"))
    events = EventAccumulator(str(tmp_path / "logs" / "run")).Reload()
    for name, values in state.history.items():
        points = events.Tensors(name)
        assert [point.step for point in points] == [1, 2, 3]
        told = [float(make_ndarray(point.tensor_proto)) for point in points]
        assert told == pytest.approx(values)


def test_mlflow_gets_parameters_curves_and_the_published_folder(
    tmp_path: Path, mlflow_folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    told = trackers(tmp_path / "run")
    state = train(tmp_path / "run", told)
    told[0].ended()
    dataset = '{"name": "mnist", "hash": "abc"}'
    metrics = '{"accuracy": 0.75, "calibration_error": 0.01}'
    folder = publish(tmp_path, metadata={"dataset": dataset, "metrics": metrics})
    (folder / "README.md").write_text("A card")
    told[0].published(folder)

    client, run = MlflowClient(), (tmp_path / "run" / tracking.RUN_ID).read_text()
    held = client.get_run(run)
    assert (held.info.run_name, held.info.status) == ("run", "FINISHED")
    assert held.data.params["recipe"] == "tiny"
    assert held.data.params["epochs"] == "3"
    assert held.data.metrics["test_accuracy"] == 0.75
    points = client.get_metric_history(run, "val_loss")
    assert [(point.step, point.value) for point in points] == list(
        enumerate(state.history["val_loss"], start=1)
    )
    kept = {Path(found.path).name for found in client.list_artifacts(run)}
    assert {"model.onnx", "README.md", "golden"} <= kept


def test_a_run_that_mlflow_learns_of_when_it_is_exported_has_ended(
    tmp_path: Path, mlflow_folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    (told,) = trackers(tmp_path)
    metadata = {"dataset": "{}", "metrics": '{"accuracy": 1, "calibration_error": 0}'}
    told.published(publish(tmp_path, metadata=metadata))
    run = MlflowClient().get_run((tmp_path / tracking.RUN_ID).read_text())
    assert run.info.status == "FINISHED"


def test_a_resumed_run_goes_on_in_the_same_place(tmp_path: Path, mlflow_folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    for epoch in (0, 1):
        (told,) = trackers(tmp_path / "run")
        told.on_epoch_end(epoch, {"loss": 1.0 / (epoch + 1)})
    run = (tmp_path / "run" / tracking.RUN_ID).read_text()
    points = MlflowClient().get_metric_history(run, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5)]


def test_a_run_that_the_server_does_not_know_begins_anew(
    tmp_path: Path, mlflow_folder: Path
) -> None:
    (told,) = trackers(tmp_path / "run")
    (tmp_path / "run" / tracking.RUN_ID).write_text("0" * 32)
    told.on_epoch_end(0, {"loss": 1.0})
    assert (tmp_path / "run" / tracking.RUN_ID).read_text() != "0" * 32


def test_a_server_that_is_away_does_not_stop_training(
    tmp_path: Path,
    mlflow_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told = trackers(tmp_path / "run")
    assert train(tmp_path / "run", told).epoch == 3
    told[0].ended()
    for what in ("epoch 1", "epoch 3", "the end of training"):
        assert f"MLflow was not told of {what}: API request to {AWAY}" in caplog.text


def test_what_was_missed_is_told_when_the_server_is_back(
    tmp_path: Path, mlflow_folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    (told,) = trackers(tmp_path / "run")
    mlflow_folder.rename(tmp_path / "elsewhere")
    mlflow_folder.write_text("a file where a folder was")
    told.on_epoch_end(0, {"loss": 3.0})
    assert not (tmp_path / "run" / tracking.RUN_ID).exists()
    mlflow_folder.unlink()
    (tmp_path / "elsewhere").rename(mlflow_folder)
    told.on_epoch_end(1, {"loss": 2.0})
    run = (tmp_path / "run" / tracking.RUN_ID).read_text()
    points = MlflowClient().get_metric_history(run, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 3.0), (2, 2.0)]


def test_an_address_that_mlflow_cannot_use_is_told_at_the_start(
    tmp_path: Path, mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://127.0.0.1")
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI cannot be used"):
        trackers(tmp_path / "run")


def test_a_folder_that_tensorboard_cannot_write_is_told_at_the_start(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--tensorboard .*file/logs/run cannot be written"):
        trackers(tmp_path / "run", tensorboard=tmp_path / "file" / "logs")


class Stopped(tracking.Tracker):
    """A place in whose telling SIGTERM arrives."""

    def tell(self, *_: object) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_while_telling_still_stops_the_run() -> None:
    def stop(*_: object) -> None:
        raise Preempted("Stopped.")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Preempted):
            Stopped().on_epoch_end(0, {"loss": 1.0})
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_name_of_a_recipe_is_not_taken_for_the_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--tensorboard", "digits"])
    assert "NAME" in capsys.readouterr().err
