"""Tell TensorBoard and MLflow how a run goes, where they were asked for.

Neither is imported, nor need be installed, where it was not. Knows both by their own clients, so
that any Keras backend will do; knows nothing of how training runs. A tracking server that is away
is no concern of a run of hours: it goes on, and tells what was missed when the server is back.
"""

import importlib.util
import logging
import os
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from training.errors import TrainingError, UsageError
from training.modelling.recipe import Recipe

if TYPE_CHECKING:
    from training.evaluation.published import Version

log = logging.getLogger(__name__)

EXPERIMENT = "convserve"
RUN_ID = "mlflow-run"  # in the run folder: a resumed run goes on in the same one
MOST_METRICS = 1000  # that MLflow takes at once
# MLflow's own would hold training for four minutes an epoch when its server is away.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Tracker(keras.callbacks.Callback):  # type: ignore[misc]
    """One place that is told of a run; what goes wrong there is logged and goes no further."""

    async_safe = True  # it looks at no step, so Keras need not wait for one

    @abstractmethod
    def tell(self, epoch: int, values: Mapping[str, float]) -> None:
        """What was measured in an epoch, counted from 1."""

    def finish(self) -> None:
        """Training has come to its end."""

    def keep(self, version: "Version") -> None:
        """A version was published from this run."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Tell."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        self._try(f"epoch {epoch + 1}", self.tell, epoch + 1, values)

    def ended(self) -> None:
        """Tell that the last epoch is over: Keras' own end comes after a part of an epoch too."""
        self._try("the end of training", self.finish)

    def published(self, folder: Path) -> None:
        """Tell of a published version."""
        from training.evaluation.published import (
            Version,  # knows ONNX, which training alone does not need
        )

        self._try(f"{folder}", lambda: self.keep(Version(folder)))

    def _try(self, what: str, tell: Any, *values: Any) -> None:
        try:
            tell(*values)
        except TrainingError:
            raise  # a signal may arrive here too
        except Exception as exc:  # noqa: BLE001 - each client has errors of its own
            reason = str(exc).partition("\n")[0][:200]
            log.warning("%s was not told of %s: %s", type(self).__name__, what, reason)


class TensorBoard(Tracker):
    """Writes event files for ``tensorboard --logdir``."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from tensorboard.summary import Writer

        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise UsageError(f"--tensorboard {folder} cannot be written: {exc.strerror}.") from exc
        self._writer = Writer(str(folder))

    def tell(self, epoch: int, values: Mapping[str, float]) -> None:
        """One point of each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()


class MLflow(Tracker):
    """Sends parameters, curves and the published folder to ``MLFLOW_TRACKING_URI``."""

    def __init__(self, run: Path, parameters: Mapping[str, object]) -> None:
        super().__init__()
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient()
        except MlflowException as exc:
            raise UsageError(f"MLFLOW_TRACKING_URI cannot be used: {exc}") from exc
        self._folder, self._parameters = run, parameters
        self._run = ""
        self._unsent: list[Any] = []

    def tell(self, epoch: int, values: Mapping[str, float]) -> None:
        """Send this epoch, and those that could not be sent before."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self._unsent += [Metric(name, value, now, epoch) for name, value in values.items()]
        self._send()

    def finish(self) -> None:
        """Send what is left."""
        self._send()
        self._client.set_terminated(self._run)

    def keep(self, version: "Version") -> None:
        """Send how the exported file did on the test split, and the whole folder."""
        metrics = version.metadata["metrics"]
        self._send()
        for name in ("accuracy", "calibration_error"):
            self._client.log_metric(self._run, f"test_{name}", metrics[name])
        self._client.log_artifacts(self._run, str(version.folder))
        self._client.set_terminated(self._run)  # `export` has no end of training

    def _send(self) -> None:
        self._run = self._run or self._known_run() or self._new_run()
        while self._unsent:
            self._client.log_batch(self._run, metrics=self._unsent[:MOST_METRICS])
            del self._unsent[:MOST_METRICS]

    def _known_run(self) -> str:
        """The run that this folder began, empty where the server does not have it."""
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


def check(tensorboard: Path | None = None) -> None:
    """Find out, before hours of training, whether what is asked for is installed.

    Raises:
        UsageError: it is not; the message says what to install.
    """
    asked = {
        "tensorboard": ("tensorboard", "--tensorboard is given" if tensorboard else ""),
        "mlflow": ("mlflow-skinny", "MLFLOW_TRACKING_URI is set" if _mlflow() else ""),
    }
    for module, (package, how) in asked.items():
        if how and importlib.util.find_spec(module) is None:
            raise UsageError(
                f"{how}, and {package} is not installed. "
                f"Install {package}, which is in the extra `track`, or leave it away."
            )


def trackers(
    recipe: Recipe,
    *,
    run: Path,
    seed: int,
    epochs: int | None = None,
    tensorboard: Path | None = None,
) -> list[Tracker]:
    """Those that were asked for, by the folder of TensorBoard's files and by the environment.

    Raises:
        UsageError: ``MLFLOW_TRACKING_URI`` is no address that MLflow can use.
    """
    found: list[Tracker] = []
    if tensorboard:
        found.append(TensorBoard(tensorboard / run.name))
    if _mlflow():
        parameters = {
            "recipe": recipe.name,
            "page": recipe.fingerprint(),
            "seed": seed,
            "epochs": epochs or recipe.epochs,
            "batch_size": recipe.batch_size,
            "label_smoothing": recipe.label_smoothing,
            "size": "×".join(map(str, recipe.size)),
        }
        found.append(MLflow(run, parameters))
    return found


def _mlflow() -> bool:
    return bool(os.environ.get("MLFLOW_TRACKING_URI"))
