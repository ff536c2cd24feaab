import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.training import tiny
from training.evaluation.evaluation import Judgement
from training.evaluation.scoring import Score, probabilities
from training.modelling.network import build, served
from training.publishing import to_onnx
from training.publishing.quantize import quantize, refusal

NOTHING = np.zeros((0, 2), np.float32)
FLOAT32 = Judgement(Score(9_500, 10_000), 0.01, NOTHING, NOTHING[:, 0], {}, 3.0)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    network = served(tiny.RECIPE, build(tiny.RECIPE, 2))
    return to_onnx.convert(to_onnx.with_probabilities(network, 1.5))


@pytest.fixture(scope="module")
def int8(graph: onnx.ModelProto) -> onnx.ModelProto:
    return quantize(graph, tiny.dataset().train.images)


def test_the_input_and_output_follow_the_contract(
    graph: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    assert list(int8.graph.input) == list(graph.graph.input)
    assert list(int8.graph.output) == list(graph.graph.output)


def test_the_weights_are_int8_of_seven_bits(int8: onnx.ModelProto) -> None:
    held = [onnx.numpy_helper.to_array(each) for each in int8.graph.initializer]
    weights = [each for each in held if each.dtype == np.int8 and each.ndim > 1]
    assert [each.ndim for each in weights] == [4, 2]
    assert all(np.abs(each).max() <= 64 for each in weights)


def test_logits_temperature_and_softmax_stay_float32(int8: onnx.ModelProto) -> None:
    made = {output: node for node in int8.graph.node for output in node.output}
    node, chain = made["probabilities"], []
    while node.op_type != "MatMul":
        chain.append(node.op_type)
        node = next(made[name] for name in node.input if name in made)
    assert chain[0] == "Softmax"
    assert "DequantizeLinear" not in chain


def test_int8_answers_nearly_as_the_float32_graph_does(
    graph: onnx.ModelProto, int8: onnx.ModelProto, tmp_path: Path
) -> None:
    onnx.save(graph, tmp_path / "float32.onnx")
    onnx.save(int8, tmp_path / "int8.onnx")
    images = tiny.dataset().test.images
    one, other = (probabilities(tmp_path / f"{name}.onnx", images) for name in ("float32", "int8"))
    difference = np.abs(one - other).max()
    assert 0 < difference < 0.05


def test_quantising_is_deterministic_silent_and_leaves_no_file(
    graph: onnx.ModelProto,
    int8: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = graph.SerializeToString(deterministic=True)
    with caplog.at_level(logging.INFO):
        again = quantize(graph, tiny.dataset().train.images)
    assert graph.SerializeToString(deterministic=True) == before
    assert again.SerializeToString(deterministic=True) == int8.SerializeToString(deterministic=True)
    assert list(tmp_path.iterdir()) == []
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("correct", "milliseconds", "reason"),
    [
        (9_490, 2.0, ""),
        (9_600, 2.0, ""),
        (9_489, 2.0, "it is 0.11 points less accurate (9,489 of 10,000 correct (94.89%), "),
        (9_500, 2.9, "it is not 10% faster (9,500 of 10,000 correct (95.00%), "),
    ],
)
def test_int8_is_refused_if_it_loses_accuracy_or_gains_no_time(
    correct: int, milliseconds: float, reason: str
) -> None:
    judged = replace(FLOAT32, score=Score(correct, 10_000), milliseconds=milliseconds)
    refused = refusal(FLOAT32, judged)
    assert refused.startswith(reason)
    assert bool(refused) == bool(reason)
