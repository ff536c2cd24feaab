"""One published version: its files, its metadata and the rules of the contract.

Knows ``models/README.md`` and what a session can do; knows nothing of HTTP or of where versions
lie.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import ModelError
from serving.inference.images.pixels import FITS, PixelSpec
from serving.inference.models.session import CUDA, Options, session

SCHEMA = "1"
FILES = {"float32": "model.onnx", "int8": "model.int8.onnx"}  # by precision
TIMED = 3  # inferences of one image that tell how long one takes
ROUNDING = 1e-3  # by which probabilities, and their sum, may exceed 1
FASTER = 1.1  # times as fast as int8, float32 takes its place

CUDA_SIZES = (1, 2, 4, 8, 16)  # batches on a GPU, where each shape is slow when it is first seen
INFORMATIVE = (
    "title",
    "recipe",
    "metrics",
    "baseline",
    "conformal",
    "dataset",
    "trained_at",
    "source",
)


def load(folder: Path, *, name: str, version: int, options: Options) -> "list[Model]":
    """The version in ``folder`` in each precision that may serve, the one to prefer first.

    Where there is no int8 file, that is float32: one setting is for all versions, and not each is
    published in int8.

    Raises:
        ModelError: a file cannot be loaded or breaks a rule; the message says which.
    """

    def loaded(precision: str) -> Model:
        file = folder / FILES[precision]
        model = Model(file, name=name, version=version, options=options)
        if model.precision != precision:
            raise ModelError(f"{file} says that it is {model.precision}. Expected {precision}.")
        return model

    if options.precision == "float32" or not (folder / FILES["int8"]).exists():
        return [loaded("float32")]
    if options.precision == "int8":
        return [loaded("int8")]
    found = [loaded("int8"), loaded("float32")]
    if found[1].seconds * FASTER <= found[0].seconds:
        found.reverse()
    return found


class Model:
    """A loaded version that keeps the contract.

    A session's threads do not survive a fork, so it refuses to run in any process but its own.
    """

    def __init__(
        self, path: Path, *, name: str, version: int, options: Options | None = None
    ) -> None:
        """Load ``path`` and check every rule.

        Raises:
            ModelError: the file cannot be loaded or breaks a rule; the message says which.
        """
        self.name = name
        self.version = version
        self._pid = os.getpid()
        self._options = options or Options()
        self._session = session(path, self._options)
        self.on_device = self.provider == CUDA
        self._sizes = CUDA_SIZES if self.on_device else ()
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
            self._check_identity(metadata)
            self.spec = PixelSpec(*self._check_graph(), fit=_one_of(metadata, "fit", FITS))
            self.precision = _one_of(metadata, "precision", FILES, default="float32")
            self.labels = _labels(metadata)
            self.thresholds = _thresholds(metadata)
            self.about: dict[str, object] = {
                key: _informative(metadata[key]) for key in INFORMATIVE if key in metadata
            }
            _check_measured(self.about)
            self._warm_up()
        except ModelError as exc:
            raise ModelError(f"{path} breaks the contract: {exc}") from exc

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def provider(self) -> str:
        """The execution provider that the session really got."""
        return str(self._session.get_providers()[0])

    @property
    def unmet(self) -> str:
        """What was asked for and not got, so that this replica must not be ready; else empty."""
        if self._options.device != "cuda" or self.provider == CUDA:
            return ""
        return f"{self} was to run on {CUDA} and runs on {self.provider}."

    @property
    def running(self) -> dict[str, str]:
        """How it is run."""
        return {"provider": self.provider, "precision": self.precision}

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, K) of uint8 images (N, H, W, C)."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"The session of {self} was made in process {self._pid} and is used in"
                f" {os.getpid()}. Load models after the fork."
            )
        size = next((each for each in self._sizes if each >= len(batch)), len(batch))
        padded = batch if size == len(batch) else np.resize(batch, (size, *batch.shape[1:]))
        (probabilities,) = self._session.run(["probabilities"], {"image": padded})
        return np.asarray(probabilities[: len(batch)], dtype=np.float32)

    def _check_identity(self, metadata: Mapping[str, str]) -> None:
        expected = {"schema": SCHEMA, "name": self.name, "version": str(self.version)}
        for key, value in expected.items():
            if metadata.get(key) != value:
                raise ModelError(f"metadata '{key}' is {metadata.get(key)!r}. Expected {value!r}.")

    def _check_graph(self) -> tuple[int, int, int]:
        """Height, width and channels, once both ends of the graph were found right."""
        shape = _only("input", self._session.get_inputs(), "image", "tensor(uint8)").shape
        if len(shape) != 4 or shape[0] != "N" or not all(_positive(size) for size in shape[1:]):
            raise ModelError(f"input 'image' has shape {shape}. Expected ['N', height, width, C].")
        if shape[3] not in (1, 3):
            raise ModelError(f"input 'image' has {shape[3]} channels. Expected 1 or 3.")
        output = _only("output", self._session.get_outputs(), "probabilities", "tensor(float)")
        if len(output.shape) != 2 or isinstance(output.shape[0], int):
            raise ModelError(f"output 'probabilities' has shape {output.shape}. Expected ['N', K].")
        return shape[1], shape[2], shape[3]

    def _warm_up(self) -> None:
        """Run one and two images: the first request pays nothing, and the shapes are seen. Then see
        how long one takes, at least: other work may have been in the way, so what runs faster
        later counts."""
        for n in self._sizes or (1, 2):
            shape = (n, self.spec.height, self.spec.width, self.spec.channels)
            try:
                probabilities = self.predict(np.zeros(shape, dtype=np.uint8))
            except Exception as exc:
                raise ModelError(f"the graph does not run on {n} black images: {exc}") from exc
            if probabilities.shape != (n, len(self.labels)):
                raise ModelError(
                    f"{n} images give shape {probabilities.shape}."
                    f" Expected {(n, len(self.labels))}, one column for each label."
                )
            if not np.allclose(probabilities.sum(axis=1), 1, atol=ROUNDING):
                raise ModelError(f"rows of the output sum to {probabilities.sum(axis=1)}, not 1.")
        self.seconds = min(map(self._timed, range(TIMED)))

    def _timed(self, _: int) -> float:
        shape = (1, self.spec.height, self.spec.width, self.spec.channels)
        began = time.perf_counter()
        self.predict(np.zeros(shape, dtype=np.uint8))
        return time.perf_counter() - began


def _only(side: str, found: list[Any], name: str, kind: str) -> Any:
    """The one input or output of the graph, named and typed as the contract says."""
    described = [(each.name, each.type) for each in found]
    if described != [(name, kind)]:
        raise ModelError(f"{side}s are {described}. Expected exactly one, {(name, kind)}.")
    return found[0]


def _positive(size: object) -> bool:
    return isinstance(size, int) and size > 0


def _one_of(
    metadata: Mapping[str, str], key: str, known: Iterable[str], default: str | None = None
) -> str:
    value = metadata.get(key, default)
    if value is None or value not in known:
        raise ModelError(f"metadata '{key}' is {value!r}. Known: {', '.join(known)}.")
    return value


def _labels(metadata: Mapping[str, str]) -> tuple[str, ...]:
    try:
        labels = json.loads(metadata.get("labels", ""))
    except ValueError:
        labels = None
    is_list = isinstance(labels, list) and labels and all(isinstance(each, str) for each in labels)
    if not is_list or len(set(labels)) != len(labels):
        raise ModelError(
            f"metadata 'labels' is {metadata.get('labels')!r}."
            " Expected a JSON list of different strings."
        )
    return tuple(labels)


def _thresholds(metadata: Mapping[str, str]) -> dict[float, float]:
    """By coverage, the probability that puts a label into a prediction set; empty where the file
    does not say."""
    text = metadata.get("conformal", "{}")
    try:
        thresholds = {float(coverage): float(p) for coverage, p in json.loads(text).items()}
        if all(0 < coverage < 1 and 0 <= p <= 1 for coverage, p in thresholds.items()):
            return thresholds
    except (ValueError, TypeError, AttributeError):
        pass
    raise ModelError(
        f"metadata 'conformal' is {text!r}."
        ' Expected a JSON object of coverages and probabilities, {"0.9": 0.5, …}.'
    )


def _check_measured(about: Mapping[str, Any]) -> None:
    """See that what ``/metrics`` and ``/quality`` tell of the file can be told."""
    metrics, baseline = about.get("metrics", {}), about.get("baseline", {})
    try:
        told = [metrics.get(key, 0) for key in ("accuracy", "calibration_error")]
        told += [*baseline.get("classes", {}).values(), *baseline.get("confidence", [])]
        if all(isinstance(each, int | float) for each in told):
            return
    except (AttributeError, TypeError):
        pass
    raise ModelError(
        f"metadata 'metrics' is {metrics!r} and 'baseline' {baseline!r}."
        ' Expected {"accuracy": 0.9, …} and {"classes": {"cat": 0.5, …}, "confidence": [0.1, …]}.'
    )


def _informative(text: str) -> object:
    """A value that serving only passes on: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def best(model: Model, row: Sequence[float]) -> tuple[str, float]:
    """The label of the highest probability in a row, and that probability.

    Raises:
        FloatingPointError: it is none, or another in the row is no number.
    """
    highest = max(row)
    if not (0 <= highest <= 1 + ROUNDING and math.isfinite(sum(row))):
        raise FloatingPointError(f"{model} gave what is no probability.")
    return model.labels[row.index(highest)], highest
