"""One published version: its files, its metadata and the rules of the contract.

Knows ``models/README.md`` and sessions; knows nothing of HTTP or of where versions are stored.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import ModelError
from serving.inference.images.pixels import PixelSpec
from serving.inference.models.session import CUDA, session
from serving.settings import Settings

OUTPUT, TYPICALITY = ("probabilities", "tensor(float)"), ("typicality", "tensor(float)")
OUTPUTS = {"1": ([OUTPUT],), "2": ([OUTPUT], [OUTPUT, TYPICALITY])}  # allowed, by schema
FILES = {"float32": "model.onnx", "int8": "model.int8.onnx"}  # by precision
TIMED = 3  # inferences of one image, of which the fastest counts
ROUNDING = 1e-3  # by which probabilities, and their sum, may exceed 1
FASTER = 1.1  # times as fast as int8, float32 is preferred

CUDA_SIZES = (1, 2, 4, 8, 16)  # batches on a GPU, where the first batch of each shape is slow
INFORMATIVE = (
    *("title", "recipe", "metrics", "baseline", "conformal", "dataset", "trained_at", "source"),
)


def load_precisions(folder: Path, settings: Settings) -> "list[Model]":
    """Return the version in ``folder`` in each precision that may serve, the preferred one first.

    Without an int8 file that is float32 alone: one setting is for all versions, and not each is
    published in int8. Raises what ``Model`` raises.
    """
    precisions = ["int8", "float32"] if settings.precision == "auto" else [settings.precision]
    if not (folder / FILES["int8"]).exists():
        precisions = ["float32"]
    models = []
    name, version = folder.parent.name, int(folder.name)
    for precision in precisions:
        file = folder / FILES[precision]
        model = Model(file, name=name, version=version, settings=settings)
        if model.precision != precision:
            raise ModelError(f"{file} says that it is {model.precision}. Expected {precision}.")
        models.append(model)
    if models[-1].seconds * FASTER <= models[0].seconds:
        models.reverse()
    return models


class Model:
    """A loaded version that keeps the contract. It refuses to run in any process but its own, as
    a session's threads do not survive a fork."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        version: int,
        settings: Settings | None = None,
        optimised: bool = False,
    ) -> None:
        """Load ``path`` and check every rule; ``optimised`` as for ``session``. Raise ModelError if
        the file cannot be loaded or breaks a rule; the message says which."""
        self.name = name
        self.version = version
        self._pid = os.getpid()
        settings = settings or Settings()
        self._device = settings.device
        self._session = session(path, settings, optimised=optimised)
        self.on_device = self.provider == CUDA
        self._sizes = CUDA_SIZES if self.on_device else ()
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
            schema = _one_of(metadata, "schema", OUTPUTS)
            for key, expected in (("name", name), ("version", str(version))):
                _one_of(metadata, key, [expected])
            self.spec = PixelSpec(*self._check_input(), fit=metadata.get("fit", ""))
            self._outputs = self._check_outputs(schema)
            self.typical = TYPICALITY[0] in self._outputs
            self.precision = _one_of(metadata, "precision", FILES, default="float32")
            self.about = _about(metadata)
            self.labels: tuple[str, ...] = tuple(self.about.pop("labels"))
            conformal = self.about.get("conformal", {})
            # By coverage, the least probability of a label in a prediction set.
            self.thresholds = {float(coverage): float(p) for coverage, p in conformal.items()}
            self._warm_up()
        except (ModelError, ValueError) as exc:
            raise ModelError(f"{path} breaks the contract: {exc}") from exc

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def provider(self) -> str:
        """The execution provider that the session really uses."""
        return str(self._session.get_providers()[0])

    @property
    def missing_device(self) -> str:
        """The reason why this replica must not be ready: the demanded device is missing; or ""."""
        if self._device != "cuda" or self.provider == CUDA:
            return ""
        return f"{self} runs on {self.provider}. Expected {CUDA}."

    @property
    def running(self) -> dict[str, str]:
        """The provider and the precision."""
        return {"provider": self.provider, "precision": self.precision}

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities (N, K) of uint8 images (N, H, W, C)."""
        return self.infer(batch)[:, : len(self.labels)]

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return a row for each of the uint8 images (N, H, W, C): its probabilities and, where
        ``typical``, its typicality in one more column."""
        if os.getpid() != self._pid:
            made = f"The session of {self} was made in process {self._pid}"
            raise RuntimeError(f"{made} and is used in {os.getpid()}. Load models after the fork.")
        size = next((each for each in self._sizes if each >= len(batch)), len(batch))
        padded = batch if size == len(batch) else np.resize(batch, (size, *batch.shape[1:]))
        probabilities, *others = self._session.run(self._outputs, {"image": padded})
        if others:
            columns = [probabilities, *(each[:, None] for each in others)]
            probabilities = np.concatenate(columns, axis=1)
        return np.asarray(probabilities[: len(batch)], dtype=np.float32)

    def _check_input(self) -> tuple[int, int, int]:
        """Check the input of the graph; return height, width and channels."""
        inputs = self._session.get_inputs()
        if _described(inputs) != [("image", "tensor(uint8)")]:
            raise ModelError(
                f"inputs are {_described(inputs)}."
                " Expected exactly one, ('image', 'tensor(uint8)')."
            )
        shape = inputs[0].shape
        fixed = all(isinstance(size, int) and size > 0 for size in shape[1:])
        if len(shape) != 4 or shape[0] != "N" or not fixed:
            raise ModelError(f"input 'image' has shape {shape}. Expected ['N', height, width, C].")
        return shape[1], shape[2], shape[3]

    def _check_outputs(self, schema: str) -> list[str]:
        """Check the outputs of the graph; return their names."""
        outputs = self._session.get_outputs()
        described = _described(outputs)
        if described not in OUTPUTS[schema]:
            expected = " or ".join(map(str, OUTPUTS[schema]))
            raise ModelError(f"outputs are {described}. Schema {schema} expects {expected}.")
        for output, shape in zip(outputs, (["N", "K"], ["N"]), strict=False):
            if len(output.shape) != len(shape) or isinstance(output.shape[0], int):
                raise ModelError(
                    f"output '{output.name}' has shape {output.shape}. Expected {shape}."
                )
        return [name for name, _ in described]

    def _warm_up(self) -> None:
        """Run black images, so that the first request is fast, check the output, and measure
        ``seconds``, the least time of one image. Later inferences may lower it, as other work may
        disturb this measurement."""
        black = np.zeros((1, self.spec.height, self.spec.width, self.spec.channels), np.uint8)
        for n in self._sizes or (1, 2):
            try:
                rows = self.infer(black.repeat(n, axis=0))
            except Exception as exc:
                raise ModelError(f"the graph does not run on {n} black images: {exc}") from exc
            probabilities, typicality = np.split(rows, [rows.shape[1] - self.typical], axis=1)
            if probabilities.shape != (n, len(self.labels)):
                raise ModelError(
                    f"{n} images give shape {probabilities.shape}."
                    f" Expected {(n, len(self.labels))}, one column for each label."
                )
            if not np.allclose(probabilities.sum(axis=1), 1, atol=ROUNDING):
                raise ModelError(f"rows of the output sum to {probabilities.sum(axis=1)}, not 1.")
            if not np.all((typicality >= 0) & (typicality <= 1)):
                raise ModelError(f"the typicality is {typicality[:, 0]}. Expected 0 to 1.")
        self.seconds = math.inf
        for _ in range(TIMED):
            started = time.perf_counter()
            self.infer(black)
            self.seconds = min(self.seconds, time.perf_counter() - started)


def _described(ends: list[Any]) -> list[tuple[str, str]]:
    """Return the names and the types of the inputs or outputs of a graph."""
    return [(each.name, each.type) for each in ends]


def _one_of(
    metadata: Mapping[str, str], key: str, known: Iterable[str], default: str | None = None
) -> str:
    value = metadata.get(key, default)
    if value is None or value not in known:
        raise ModelError(f"metadata '{key}' is {value!r}. Expected {' or '.join(map(repr, known))}.")
    return value


def _about(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata that is JSON or for people, parsed; check what serving uses."""
    about = {key: _parsed(metadata[key]) for key in ("labels", *INFORMATIVE) if key in metadata}
    for key, (is_valid, expected) in _VALUES.items():
        value = about.get(key)
        try:
            valid = (key not in about and key != "labels") or is_valid(value)
        except (ValueError, TypeError, AttributeError):
            valid = False
        if not valid:
            raise ModelError(f"metadata '{key}' is {value!r}. Expected {expected}.")
    return about


def _parsed(text: str) -> Any:
    """Return the JSON value of a text, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _are_labels(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return False
    return len(set(value)) == len(value) > 0


def _are_thresholds(value: Any) -> bool:
    return all(0 < float(key) < 1 and 0 <= float(p) <= 1 for key, p in value.items())


def _are_metrics(value: Any) -> bool:
    return _are_numbers(value.get("accuracy", 0), value.get("calibration_error", 0))


def _is_baseline(value: Any) -> bool:
    tenths = (*value.get("confidence", []), *value.get("typicality", []))
    return _are_numbers(*value.get("classes", {}).values(), *tenths)


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(each, int | float) for each in values)


_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "labels": (_are_labels, "a JSON list of different strings"),
    "conformal": (_are_thresholds, 'probabilities by coverage, {"0.9": 0.5, …}'),
    "metrics": (_are_metrics, 'numbers, {"accuracy": 0.9, …}'),
    "baseline": (_is_baseline, 'numbers, {"classes": {"cat": 0.5, …}, "confidence": [0.1, …]}'),
}
