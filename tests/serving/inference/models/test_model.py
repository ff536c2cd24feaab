"""Loading one version: every broken rule of the contract has a message."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.errors import ModelError
from serving.inference.models.model import Model
from serving.inference.models.model import load_precisions
from serving.settings import Settings
from tests.serving.samples import add_int8, brightness_graph, publish

SLOW = 3  # products: some hundred times as long as without


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
        ({"metadata": {"schema": "3"}}, "metadata 'schema' is '3'. Expected '1' or '2'."),
        ({"metadata": {"schema": ""}}, "metadata 'schema' is None. Expected '1' or '2'."),
        ({"metadata": {"schema": "1"}, "typical": 1}, "]. Schema 1 expects [('probabilities',"),
        ({"typical": math.nan}, "the typicality is [nan]. Expected 0 to 1."),
        ({"metadata": {"name": "other"}}, "metadata 'name' is 'other'. Expected 'shade'."),
        ({"metadata": {"version": "9"}}, "metadata 'version' is '9'. Expected '1'."),
        ({"metadata": {"fit": "crop"}}, "No fit named 'crop'. Known fits: stretch, digit."),
        ({"metadata": {"fit": ""}}, "No fit named ''. Known fits: stretch, digit."),
        ({"metadata": {"fit": "digit"}}, "The input is 8x6x1. The fit 'digit' makes 28x28x1."),
        ({"metadata": {"labels": ""}}, "'labels' is None. Expected a JSON list of different"),
        ({"metadata": {"labels": "[]"}}, "'labels' is []. Expected a JSON list of different"),
        ({"metadata": {"labels": "[1, 2]"}}, "'labels' is [1, 2]. Expected a JSON list"),
        ({"metadata": {"labels": "dark light"}}, "Expected a JSON list of different strings"),
        ({"metadata": {"labels": '["a", "a"]'}}, "Expected a JSON list of different strings"),
        ({"metadata": {"labels": json.dumps(["a", "b", "c"])}}, "one column for each label"),
        ({"input_name": "pixels"}, "inputs are [('pixels', 'tensor(uint8)')]."),
        ({"shape": ("N", 8, 0, 1)}, "input 'image' has shape ['N', 8, 0, 1]."),
        ({"output_type": TensorProto.DOUBLE}, "outputs are [('probabilities', 'tensor(double)')]."),
        ({"shape": (1, 8, 6, 1)}, "input 'image' has shape [1, 8, 6, 1]."),
        ({"shape": ("N", "H", 6, 1)}, "input 'image' has shape ['N', 'H', 6, 1]."),
        ({"shape": ("N", 8, 6, 2)}, "The input has 2 channels. Expected 1 or 3."),
        ({"one": 0.5}, "rows of the output sum to"),
        ({"white": 0.0}, "rows of the output sum to [nan"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as refusal:
        load(tmp_path, **options)
    assert message in str(refusal.value)
    assert "model.onnx" in str(refusal.value)


def test_typicality_is_one_more_column_of_an_inference(tmp_path: Path) -> None:
    batch = np.stack([np.full((8, 6, 1), value, dtype=np.uint8) for value in (0, 255)])
    model = load(tmp_path, typical=0.5)
    assert model.typical
    assert model.infer(batch).tolist() == [[1, 0, 0], [0, 1, 0.5]]
    assert model.predict(batch).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("schema", ["1", "2"])
def test_a_file_may_have_probabilities_alone(tmp_path: Path, schema: str) -> None:
    model = load(tmp_path, metadata={"schema": schema})
    assert not model.typical
    assert model.infer(np.zeros((1, 8, 6, 1), np.uint8)).tolist() == [[1, 0]]


def renamed(name: str, shape: list[str | int], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return a graph whose second output has another name, shape or type."""
    graph = brightness_graph(typical=1)
    node, output = graph.graph.node[-1], graph.graph.output[-1]
    node.output[0] = "shares"
    axes = list(range(1, len(shape)))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), "more"))
    graph.graph.node.extend(
        [
            helper.make_node("Unsqueeze", ["shares", "more"], ["shaped"]),
            helper.make_node("Cast", ["shaped"], [name], to=kind),
        ]
    )
    output.CopyFrom(helper.make_tensor_value_info(name, kind, shape))
    return graph


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (renamed("energy", ["N"]), "('energy', 'tensor(float)')]. Schema 2 expects"),
        (renamed("typicality", ["N"], TensorProto.DOUBLE), "('typicality', 'tensor(double)')]."),
        (renamed("typicality", ["N", 1]), "output 'typicality' has shape ['N', 1]. Expected"),
    ],
    ids=["name", "type", "shape"],
)
def test_a_second_output_that_is_no_typicality_is_refused(
    tmp_path: Path, graph: onnx.ModelProto, message: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        load(tmp_path, graph=graph)


@pytest.mark.parametrize(
    "wrong",
    [
        {"metrics": "99 %"},
        {"metrics": '{"accuracy": "99 %"}'},
        {"baseline": "[]"},
        {"baseline": '{"classes": {"dark": "half"}}'},
        {"baseline": '{"confidence": 3}'},
        {"baseline": '{"typicality": ["half"]}'},
    ],
    ids=str,
)
def test_metadata_that_is_not_numbers_is_refused(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ModelError, match=rf"metadata '{next(iter(wrong))}' is .*Expected numbers"):
        load(tmp_path, metadata=wrong)


@pytest.mark.parametrize(
    "conformal",
    [
        *("0.9", "[0.9]", '{"0.9"', '{"high": 0.5}', '{"0.9": "high"}', '{"0.9": null}'),
        *('{"0.9": 1.5}', '{"1": 0.5}', '{"0": 0.5}', '{"0.9": NaN}'),
    ],
)
def test_invalid_thresholds_are_refused(tmp_path: Path, conformal: str) -> None:
    with pytest.raises(ModelError, match="metadata 'conformal' is .*Expected probabilities by coverage"):
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


def in_precision(folder: Path, precision: str, *, float32: int = 0, int8: int = 0) -> str:
    """Return the preferred precision of a version whose files need extra matrix products."""
    path = publish(folder, products=float32)
    add_int8(path, products=int8)
    return load_precisions(path, Settings(precision=precision))[0].precision


def test_int8_is_preferred_if_it_is_published(tmp_path: Path) -> None:
    assert in_precision(tmp_path, "auto", float32=SLOW) == "int8"


def test_float32_is_preferred_if_it_is_faster(tmp_path: Path) -> None:
    assert in_precision(tmp_path, "auto", int8=SLOW) == "float32"


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_precision_that_is_set_is_used_however_slow(
    tmp_path: Path, precision: str
) -> None:
    assert in_precision(tmp_path, precision, **{precision: SLOW}) == precision


@pytest.mark.parametrize("precision", ["auto", "int8", "float32"])
def test_a_version_without_an_int8_file_is_served_in_float32(
    tmp_path: Path, precision: str
) -> None:
    path = publish(tmp_path)
    (model,) = load_precisions(path, Settings(precision=precision))
    assert model.precision == "float32"


def test_a_broken_int8_file_is_named(tmp_path: Path) -> None:
    path = publish(tmp_path)
    (path / "model.int8.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"model\.int8\.onnx cannot be loaded"):
        load_precisions(path, Settings())


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("float32", r"model\.int8\.onnx says that it is float32\. Expected int8\."),
        ("int4", r"metadata 'precision' is 'int4'\. Expected 'float32' or 'int8'\."),
    ],
)
def test_a_file_of_another_precision_than_its_name_is_refused(
    tmp_path: Path, precision: str, message: str
) -> None:
    path = publish(tmp_path)
    add_int8(path, precision=precision)
    with pytest.raises(ModelError, match=message):
        load_precisions(path, Settings())


@pytest.mark.parametrize(
    "options", [{"arena": "off"}, {"optimisation": "basic"}, {"intra_threads": 2}], ids=str
)
def test_the_settings_of_a_session_do_not_change_its_answers(tmp_path: Path, options: Any) -> None:
    path = publish(tmp_path) / "model.onnx"
    model = Model(path, name="shade", version=1, settings=Settings(**options))
    assert model.predict(np.full((1, 8, 6, 1), 255, np.uint8)).tolist() == [[0, 1]]


def test_onnxruntime_does_not_report_usage() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
