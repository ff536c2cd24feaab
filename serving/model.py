"""One published version: its onnxruntime session, its metadata and the rules of the contract.

Knows ``models/README.md`` and onnxruntime; knows nothing of HTTP or of where
versions lie.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# onnxruntime's Linux build reports usage over the network; it reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.errors import ModelError
from serving.images import FITS, PixelSpec

SCHEMA = "1"
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


class Model:
    """A loaded version that keeps the contract.

    A session's threads do not survive a fork, so it refuses to run in any process but its own.
    """

    def __init__(self, path: Path, *, name: str, version: int, intra_threads: int = 1) -> None:
        """Load ``path`` and check every rule.

        Raises:
            ModelError: the file cannot be loaded or breaks a rule; the message says which.
        """
        self.name = name
        self.version = version
        self._pid = os.getpid()
        self._session = _session(path, intra_threads)
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
            self._check_identity(metadata)
            self.spec = PixelSpec(*self._check_graph(), fit=_fit(metadata))
            self.labels = _labels(metadata)
            self.thresholds = _thresholds(metadata)
            self.about: dict[str, object] = {
                key: _informative(metadata[key]) for key in INFORMATIVE if key in metadata
            }
            self._warm_up()
        except ModelError as exc:
            raise ModelError(f"{path} breaks the contract: {exc}") from exc

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def provider(self) -> str:
        """The execution provider that the session really got."""
        return str(self._session.get_providers()[0])

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, K) of uint8 images (N, H, W, C)."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"The session of {self} was made in process {self._pid} and is used in"
                f" {os.getpid()}. Load models after the fork."
            )
        (probabilities,) = self._session.run(["probabilities"], {"image": batch})
        return np.asarray(probabilities, dtype=np.float32)

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
        """Run one and two images: the first request pays nothing, and the shapes are seen."""
        for n in (1, 2):
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
            if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
                raise ModelError(f"rows of the output sum to {probabilities.sum(axis=1)}, not 1.")


def _session(path: Path, intra_threads: int) -> onnxruntime.InferenceSession:
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Spinning threads burned 69 % of a core at thirty requests a second, against 3 % without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as exc:
        # onnxruntime has a class of its own for each cause, with no common root.
        raise ModelError(f"{path} cannot be loaded by onnxruntime: {exc}") from exc


def _only(side: str, found: list[Any], name: str, kind: str) -> Any:
    """The one input or output of the graph, named and typed as the contract says."""
    described = [(each.name, each.type) for each in found]
    if described != [(name, kind)]:
        raise ModelError(f"{side}s are {described}. Expected exactly one, {(name, kind)}.")
    return found[0]


def _positive(size: object) -> bool:
    return isinstance(size, int) and size > 0


def _fit(metadata: Mapping[str, str]) -> str:
    fit = metadata.get("fit", "")
    if fit not in FITS:
        raise ModelError(f"metadata 'fit' is {metadata.get('fit')!r}. Known: {', '.join(FITS)}.")
    return fit


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


def _informative(text: str) -> object:
    """A value that serving only passes on: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
