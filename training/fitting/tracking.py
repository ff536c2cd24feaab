"""Report a run to TensorBoard and MLflow, if asked for.

Neither is imported, nor needs to be installed, otherwise. Knows both by their own clients, so that
any Keras backend works; knows nothing of how training runs. An unreachable tracking server does not
stop a run of hours: training continues, and the missed values are sent when the server is back.
"""

import importlib.util
import logging
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from training.errors import HostLost, Preempted, UsageError, translated
from training.fitting.checkpoints import State
from training.modelling.recipe import Recipe

if TYPE_CHECKING:
    from training.evaluation.published import Version

log = logging.getLogger(__name__)

EXPERIMENT = "convserve"
RUN_ID = "mlflow-run"  # in the run folder: a resumed run continues the same MLflow run
MOST_METRICS = 1000  # that MLflow accepts at once
OF_STATE = ("page", "seed", "epochs", "precision", "data")  # the parameters that it holds
# MLflow's defaults would block training for four minutes an epoch if its server is unreachable.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Tracker(keras.callbacks.Callback):  # type: ignore[misc]
    """A place that a run is reported to; its failures are logged and never stop the run."""

    async_safe = True  # it uses no step, so Keras need not wait for one

    def begin(self, state: State) -> None:
        """Record what is trained, and the epochs that the run has done before."""

    @abstractmethod
    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record the values of an epoch, counted from 1."""

    def finish(self) -> None:
        """Record that training is complete."""

    def close(self, status: str) -> None:
        """Record that the run has stopped: ``KILLED``, or ``FAILED``, which no retry changes."""

    def log_version(self, version: "Version") -> None:
        """Record that a version was published from this run."""

    def begun(self, state: State) -> None:
        """Report the state that training starts or resumes with."""
        self._report("the beginning", self.begin, state)

    def stopped(self, status: str) -> None:
        """Report that the run has stopped before its end."""
        self._report(f"the status {status}", self.close, status)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report an epoch."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        self._report(f"epoch {epoch + 1}", self.log, epoch + 1, values)

    def ended(self) -> None:
        """Report the end of the last epoch: Keras' own hook runs after a part of an epoch too."""
        self._report("the end of training", self.finish)

    def published(self, version: "Version") -> None:
        """Report a published version."""
        self._report(str(version.folder), self.log_version, version)

    def _report(self, what: str, report: Callable[..., None], *values: object) -> None:
        try:
            report(*values)
        except Exception as exc:  # noqa: BLE001 - each client has its own errors
            reason = str(exc).partition("\n")[0][:200]
            log.warning("%s missed %s: %s", type(self).__name__, what, reason)


class TensorBoard(Tracker):
    """Event files for ``tensorboard --logdir``."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from tensorboard.summary import Writer

        with translated(UsageError, f"--tensorboard {folder} cannot be written"):
            folder.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(str(folder))

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write one point of each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()


class MLflow(Tracker):
    """Parameters, curves and the published folder, sent to ``MLFLOW_TRACKING_URI``."""

    def __init__(self, run: Path, parameters: Mapping[str, object]) -> None:
        super().__init__()
        self._folder, self._parameters = run, dict(parameters)
        self._run = ""  # the MLflow run, once the server has answered
        self._epochs: dict[int, Mapping[str, float]] = {}
        self._sent: set[tuple[str, int]] = set()  # names and epochs of metrics
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient()
        except MlflowException as exc:
            raise UsageError(f"MLFLOW_TRACKING_URI cannot be used: {exc}") from exc

    def begin(self, state: State) -> None:
        """Send the parameters and the epochs that the server lacks; mark the run as running."""
        self._parameters |= {name: getattr(state, name) for name in OF_STATE}
        for source in state.sources[:1]:
            self._parameters |= {name: source[name] for name in ("revision", "code")}
        for name, values in state.history.items():
            for epoch, value in enumerate(values, start=1):
                self._epochs[epoch] = {**self._epochs.get(epoch, {}), name: value}
        self._send()

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Send this epoch, and the epochs that could not be sent before."""
        self._epochs[epoch] = values
        self._send()

    def finish(self) -> None:
        """Send the rest and mark the run as finished."""
        self._send()
        self._client.set_terminated(self._run)

    def close(self, status: str) -> None:
        """Send the rest and mark the run as stopped; a signal does not wait for a lost server."""
        if self._run or status != "KILLED":
            self._send()
            self._client.set_terminated(self._run, status)

    def log_version(self, version: "Version") -> None:
        """Send the version, the test results of the exported file, and the whole folder."""
        metrics = version.metadata["metrics"]
        self._send()
        self._client.set_tag(self._run, "published_version", version.metadata["version"])
        for name in ("accuracy", "calibration_error"):
            self._client.log_metric(self._run, f"test_{name}", metrics[name])
        self._client.log_artifacts(self._run, str(version.folder))
        self._client.set_terminated(self._run)  # `export` has no end of training

    def _send(self) -> None:
        """Send the metrics that the server lacks."""
        from mlflow.entities import Metric

        self._connect()
        now = round(time.time() * 1000)
        unsent = [
            Metric(name, value, now, epoch)
            for epoch, values in self._epochs.items()
            for name, value in values.items()
            if (name, epoch) not in self._sent
        ]
        for first in range(0, len(unsent), MOST_METRICS):
            part = unsent[first : first + MOST_METRICS]
            self._client.log_batch(self._run, metrics=part)
            self._sent |= {(metric.key, metric.step) for metric in part}

    def _connect(self) -> None:
        """Find or create the run, once, and ask the server what an earlier process has sent."""
        if self._run:
            return
        run = self._known_run() or self._new_run()
        for name in self._client.get_run(run).data.metrics:
            points = self._client.get_metric_history(run, name)
            self._sent |= {(name, point.step) for point in points}
        self._client.update_run(run, status="RUNNING")
        self._run = run

    def _known_run(self) -> str:
        """Return the MLflow run that this folder began, or an empty string if it is unknown."""
        from mlflow.exceptions import MlflowException

        note = self._folder / RUN_ID
        if not note.exists():
            return ""
        try:
            return str(self._client.get_run(note.read_text()).info.run_id)
        except MlflowException as exc:
            if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
                return ""
            raise

    def _new_run(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = str(self._client.create_run(place, run_name=self._folder.name).info.run_id)
        for key, value in self._parameters.items():
            self._client.log_param(run, key, value)
        (self._folder / RUN_ID).write_text(run)
        return run


@contextmanager
def closing(reported: Sequence[Tracker]) -> Iterator[None]:
    """Report the end of a run if the block fails."""
    try:
        yield
    except BaseException as exc:
        resumes = isinstance(exc, Preempted | HostLost | KeyboardInterrupt)
        for tracker in reported:
            tracker.stopped("KILLED" if resumes else "FAILED")
        raise


def _require(module: str, package: str, reason: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UsageError(
            f"{reason}, but {package} is not installed. "
            "`pip install '.[track]'` installs it: it is in the extra `track`."
        )


def trackers(
    recipe: Recipe,
    *,
    run: Path,
    tensorboard: Path | None = None,
) -> list[Tracker]:
    """Return the trackers requested by a folder for TensorBoard and by the environment. Raise
    ``UsageError`` if the package of one is missing, or the folder or address cannot be used."""
    found: list[Tracker] = []
    if tensorboard:
        _require("tensorboard", "tensorboard", "--tensorboard is given")
        found.append(TensorBoard(tensorboard / run.name))
    if os.environ.get("MLFLOW_TRACKING_URI"):
        _require("mlflow", "mlflow-skinny", "MLFLOW_TRACKING_URI is set")
        parameters = {
            "recipe": recipe.name,
            "optimizer": type(recipe.optimizer(1)).__name__,
            "batch_size": recipe.batch_size,
            "label_smoothing": recipe.label_smoothing,
            "size": "×".join(map(str, recipe.size)),
        }
        found.append(MLflow(run, parameters))
    return found
