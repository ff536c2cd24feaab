"""Reports to TensorBoard and MLflow; needs the extra ``track``."""

import importlib.util
import signal
import sys
from pathlib import Path

import pytest

from tests.serving.samples import publish
from tests.training import tiny
from training.__main__ import main
from training.errors import Diverged, Preempted, UsageError
from training.evaluation.published import Version
from training.fitting import tracking
from training.fitting.checkpoints import State
from training.fitting.fit import fit

AWAY = "http://127.0.0.1:9"


def trackers(run: Path, *, tensorboard: Path | None = None) -> list[tracking.Tracker]:
    run.mkdir(parents=True, exist_ok=True)
    return tracking.trackers(tiny.RECIPE, run=run, tensorboard=tensorboard)


def state(epochs: int) -> State:
    """Return a run of three epochs after some of them."""
    source = {"at": "", "revision": "abc-dirty", "code": "12", "versions": {}}
    return State(
        *("tiny", "some-page", 1, 3, "float32", "some-hash", "a command"),
        epoch=epochs,
        history={"loss": [0.7, 0.5, 0.6][:epochs], "val_loss": [0.8, 0.7, 0.9][:epochs]},
        sources=[source],
    )


def train(run: Path, reported: list[tracking.Tracker]) -> State:
    return fit(
        tiny.RECIPE,
        tiny.dataset(),
        run=run,
        precision="float32",
        callbacks=reported,
        verbose=0,
    )


@pytest.fixture
def mlflow_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up MLflow's own store, in files, which its client can read back."""
    pytest.importorskip("mlflow")
    for name, value in tracking.PATIENCE.items():  # as the tracker does, but undone afterwards
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    return tmp_path / "mlflow"


def test_nothing_is_tracked_unless_requested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert trackers(tmp_path) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert trackers(tmp_path) == []


def test_neither_is_imported_unless_requested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("mlflow", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # so that an import fails
    spec = importlib.util.spec_from_file_location("fresh_tracking", str(tracking.__file__))
    assert spec
    assert spec.loader
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert fresh.trackers(tiny.RECIPE, run=tmp_path) == []


@pytest.mark.parametrize(
    ("options", "uri", "message"),
    [
        (["--tensorboard"], "", "--tensorboard is given, but tensorboard is not installed."),
        ([], AWAY, "MLFLOW_TRACKING_URI is set, but mlflow-skinny is not installed."),
    ],
)
def test_a_missing_package_is_reported_at_the_start(
    options: list[str],
    uri: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = importlib.util.find_spec
    missing = ("mlflow", "tensorboard")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else real(name)
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("DATA_MIRROR", AWAY)
    assert main(["train", "digits", f"--data-dir={tmp_path / 'nothing'}", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "extra `track`" in error


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
        written = [float(make_ndarray(point.tensor_proto)) for point in points]
        assert written == pytest.approx(values)


def test_mlflow_gets_parameters_curves_and_the_published_folder(
    tmp_path: Path, mlflow_folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    (tracker,) = trackers(tmp_path / "run")
    tracker.begun(state(0))
    for epoch, loss in enumerate((0.7, 0.5, 0.6)):
        tracker.on_epoch_end(epoch, {"val_loss": loss})
    tracker.ended()
    dataset = '{"name": "mnist", "hash": "abc"}'
    metrics = '{"accuracy": 0.75, "calibration_error": 0.01}'
    folder = publish(tmp_path, metadata={"dataset": dataset, "metrics": metrics})
    (folder / "README.md").write_text("A card")
    tracker.published(Version(folder))

    client, run = MlflowClient(), (tmp_path / "run" / tracking.RUN_ID).read_text()
    held = client.get_run(run)
    assert (held.info.run_name, held.info.status) == ("run", "FINISHED")
    assert held.data.params == {
        "recipe": "tiny",
        "page": "some-page",
        "seed": "1",
        "epochs": "3",
        "batch_size": "32",
        "size": "8×8",
        "label_smoothing": "0.0",
        "optimizer": "Adam",
        "precision": "float32",
        "data": "some-hash",
        "revision": "abc-dirty",
        "code": "12",
    }
    assert held.data.tags["published_version"] == "1"
    assert held.data.metrics["test_accuracy"] == 0.75
    points = client.get_metric_history(run, "val_loss")
    assert [(point.step, point.value) for point in points] == [(1, 0.7), (2, 0.5), (3, 0.6)]
    kept = {Path(found.path).name for found in client.list_artifacts(run)}
    assert {"model.onnx", "README.md", "golden"} <= kept


def test_a_run_that_is_first_reported_by_export_is_finished(
    tmp_path: Path, mlflow_folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    (tracker,) = trackers(tmp_path)
    metadata = {"dataset": "{}", "metrics": '{"accuracy": 1, "calibration_error": 0}'}
    tracker.published(Version(publish(tmp_path, metadata=metadata)))
    run = MlflowClient().get_run((tmp_path / tracking.RUN_ID).read_text())
    assert run.info.status == "FINISHED"


def test_a_resumed_run_continues_the_same_mlflow_run(tmp_path: Path, mlflow_folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    for epoch in (0, 1):
        (tracker,) = trackers(tmp_path / "run")
        tracker.on_epoch_end(epoch, {"loss": 1.0 / (epoch + 1)})
    run = (tmp_path / "run" / tracking.RUN_ID).read_text()
    points = MlflowClient().get_metric_history(run, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5)]


def test_epochs_missed_by_an_earlier_process_are_sent_once_from_the_history(
    tmp_path: Path, mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    (tracker,) = trackers(tmp_path / "run")
    tracker.begun(state(0))
    tracker.on_epoch_end(0, {"loss": 0.7, "val_loss": 0.8})
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", AWAY)
        away.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        (tracker,) = trackers(tmp_path / "run")
        tracker.begun(state(1))
        tracker.on_epoch_end(1, {"loss": 0.5, "val_loss": 0.7})
    for _ in range(2):
        (tracker,) = trackers(tmp_path / "run")
        tracker.begun(state(3))
    run = (tmp_path / "run" / tracking.RUN_ID).read_text()
    for name, values in state(3).history.items():
        points = MlflowClient().get_metric_history(run, name)
        assert [(each.step, each.value) for each in points] == list(enumerate(values, start=1))


@pytest.mark.parametrize(
    ("error", "status"), [(Diverged("NaN"), "FAILED"), (Preempted("Stopped."), "KILLED")], ids=str
)
def test_a_run_that_stops_is_closed_and_runs_again_when_it_resumes(
    error: BaseException, status: str, tmp_path: Path, mlflow_folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    reported = trackers(tmp_path / "run")
    reported[0].begun(state(0))
    with pytest.raises(type(error)), tracking.closing(reported):
        raise error
    run = (tmp_path / "run" / tracking.RUN_ID).read_text()
    assert MlflowClient().get_run(run).info.status == status
    (tracker,) = trackers(tmp_path / "run")
    tracker.begun(state(0))
    assert MlflowClient().get_run(run).info.status == "RUNNING"


def test_a_signal_does_not_wait_for_a_server_that_never_answered(
    tmp_path: Path, mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = trackers(tmp_path / "run")
    with pytest.raises(Preempted), tracking.closing(reported):
        raise Preempted("Stopped.")
    assert not (tmp_path / "run" / tracking.RUN_ID).exists()


def test_training_reports_its_state(tmp_path: Path, mlflow_folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    reported = trackers(tmp_path / "run")
    trained = train(tmp_path / "run", reported)
    held = MlflowClient().get_run((tmp_path / "run" / tracking.RUN_ID).read_text())
    assert (held.data.params["precision"], held.data.params["data"]) == ("float32", "some-hash")
    assert held.data.params["code"] == trained.sources[0]["code"]
    assert held.data.metrics["val_loss"] == trained.history["val_loss"][-1]


def test_a_run_unknown_to_the_server_is_created_again(tmp_path: Path, mlflow_folder: Path) -> None:
    (tracker,) = trackers(tmp_path / "run")
    (tmp_path / "run" / tracking.RUN_ID).write_text("0" * 32)
    tracker.on_epoch_end(0, {"loss": 1.0})
    assert (tmp_path / "run" / tracking.RUN_ID).read_text() != "0" * 32


def test_an_unreachable_server_does_not_stop_training(
    tmp_path: Path,
    mlflow_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tracker,) = trackers(tmp_path / "run")
    for epoch in range(3):
        tracker.on_epoch_end(epoch, {"loss": 1.0})
    tracker.ended()
    for what in ("epoch 1", "epoch 3", "the end of training"):
        assert f"MLflow missed {what}: API request to {AWAY}" in caplog.text


def test_missed_values_are_sent_when_the_server_is_back(
    tmp_path: Path, mlflow_folder: Path
) -> None:
    from mlflow.tracking import MlflowClient

    (tracker,) = trackers(tmp_path / "run")
    mlflow_folder.rename(tmp_path / "elsewhere")
    mlflow_folder.write_text("a file where a folder was")
    tracker.on_epoch_end(0, {"loss": 3.0})
    assert not (tmp_path / "run" / tracking.RUN_ID).exists()
    mlflow_folder.unlink()
    (tmp_path / "elsewhere").rename(mlflow_folder)
    tracker.on_epoch_end(1, {"loss": 2.0})
    run = (tmp_path / "run" / tracking.RUN_ID).read_text()
    points = MlflowClient().get_metric_history(run, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 3.0), (2, 2.0)]


def test_an_unusable_mlflow_address_is_reported_at_the_start(
    tmp_path: Path, mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://127.0.0.1")
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI cannot be used"):
        trackers(tmp_path / "run")


def test_an_unwritable_tensorboard_folder_is_reported_at_the_start(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--tensorboard .*file/logs/run cannot be written"):
        trackers(tmp_path / "run", tensorboard=tmp_path / "file" / "logs")


class Stopped(tracking.Tracker):
    """A tracker that receives SIGTERM while it logs."""

    def log(self, *_: object) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_while_reporting_still_stops_the_run() -> None:
    def stop(*_: object) -> None:
        raise Preempted("Stopped.")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Preempted):
            Stopped().on_epoch_end(0, {"loss": 1.0})
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_name_of_a_recipe_is_not_mistaken_for_the_tensorboard_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--tensorboard", "digits"])
    assert "NAME" in capsys.readouterr().err
