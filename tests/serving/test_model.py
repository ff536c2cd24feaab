"""One version: every rule of the contract has a sentence."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from serving.errors import ModelError
from serving.model import Model
from tests.serving.samples import publish


def load(folder: Path, **options: Any) -> Model:
    return Model(publish(folder, **options) / "model.onnx", name="shade", version=1)


def test_a_model_predicts_probabilities(tmp_path: Path) -> None:
    batch = np.stack([np.full((8, 6, 1), value, dtype=np.uint8) for value in (0, 255)])
    probabilities = load(tmp_path).predict(batch)
    assert probabilities.dtype == np.float32
    assert probabilities.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metadata": {"schema": "2"}}, "metadata 'schema' is '2'. Expected '1'."),
        ({"metadata": {"schema": ""}}, "metadata 'schema' is None. Expected '1'."),
        ({"metadata": {"name": "other"}}, "metadata 'name' is 'other'. Expected 'shade'."),
        ({"metadata": {"version": "9"}}, "metadata 'version' is '9'. Expected '1'."),
        ({"metadata": {"fit": "crop"}}, "metadata 'fit' is 'crop'. Known: stretch, digit."),
        ({"metadata": {"labels": "dark light"}}, "Expected a JSON list of different strings."),
        ({"metadata": {"labels": '["a", "a"]'}}, "Expected a JSON list of different strings."),
        ({"metadata": {"labels": json.dumps(["a", "b", "c"])}}, "one column for each label"),
        ({"input_name": "pixels"}, "inputs are [('pixels', 'tensor(uint8)')]."),
        ({"output_type": TensorProto.DOUBLE}, "outputs are [('probabilities', 'tensor(double)')]."),
        ({"shape": (1, 8, 6, 1)}, "input 'image' has shape [1, 8, 6, 1]."),
        ({"shape": ("N", "H", 6, 1)}, "input 'image' has shape ['N', 'H', 6, 1]."),
        ({"shape": ("N", 8, 6, 2)}, "input 'image' has 2 channels. Expected 1 or 3."),
        ({"white": 0.0}, "rows of the output sum to"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as refusal:
        load(tmp_path, **options)
    assert message in str(refusal.value)
    assert "model.onnx" in str(refusal.value)


@pytest.mark.parametrize(
    "conformal",
    [
        *("0.9", "[0.9]", '{"0.9"', '{"high": 0.5}', '{"0.9": "high"}', '{"0.9": null}'),
        *('{"0.9": 1.5}', '{"1": 0.5}', '{"0": 0.5}', '{"0.9": NaN}'),
    ],
)
def test_thresholds_that_are_none_are_refused(tmp_path: Path, conformal: str) -> None:
    with pytest.raises(ModelError, match="Expected a JSON object of coverages and probabilities"):
        load(tmp_path, metadata={"conformal": conformal})


def test_thresholds_are_read_by_coverage(tmp_path: Path) -> None:
    model = load(tmp_path, metadata={"conformal": '{"0.9": 0.75, "0.99": 0}'})
    assert model.thresholds == {0.9: 0.75, 0.99: 0.0}
    assert load(tmp_path / "without").thresholds == {}


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_cannot_be_loaded_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx cannot be loaded"):
        Model(path, name="shade", version=1)


def test_a_session_refuses_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tmp_path)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="Load models after the fork"):
        model.predict(np.zeros((1, 8, 6, 1), dtype=np.uint8))


def test_onnxruntime_is_told_not_to_report_usage() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
