from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from tests.training import tiny
from training.errors import ExportMismatch
from training.evaluation.calibration import softmax
from training.evaluation.scoring import probabilities
from training.modelling.network import build
from training.publishing import to_onnx


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return to_onnx.with_probabilities(build(tiny.RECIPE, 2), temperature=1.5)


@pytest.fixture(scope="module")
def graph(model: keras.Model) -> onnx.ModelProto:
    return to_onnx.convert(model)


@pytest.fixture
def file(graph: onnx.ModelProto, tmp_path: Path) -> Path:
    to_onnx.save(graph, tmp_path / "model.onnx", {"name": "brightness", "labels": ["dark"]})
    return tmp_path / "model.onnx"


def dimensions(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_the_graph_has_the_one_input_and_output_of_the_contract(graph: onnx.ModelProto) -> None:
    (image,), (answer,) = graph.graph.input, graph.graph.output
    assert (image.name, dimensions(image)) == ("image", ["N", 8, 8, 3])
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (answer.name, dimensions(answer)) == ("probabilities", ["N", 2])
    assert answer.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_metadata_hold_strings_and_json(file: Path) -> None:
    held = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert held == {"name": "brightness", "labels": '["dark"]'}


def test_the_file_answers_as_the_network_does(model: keras.Model, file: Path) -> None:
    assert to_onnx.compare(model, file, tiny.split(256, 4).images) < 1e-5


def test_probabilities_sum_to_one_for_any_number_of_images(file: Path) -> None:
    for count in (1, 7, 300):
        answers = probabilities(file, tiny.split(count, 4).images)
        assert answers.shape == (count, 2)
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)


def test_a_file_of_another_network_is_refused(file: Path) -> None:
    keras.utils.set_random_seed(2)
    other = to_onnx.with_probabilities(build(tiny.RECIPE, 2), temperature=1)
    with pytest.raises(ExportMismatch, match=r"differs from the network by .*; allowed is 1e-04"):
        to_onnx.compare(other, file, tiny.split(256, 4).images)


def test_a_comparison_on_few_images_is_refused(model: keras.Model, file: Path) -> None:
    with pytest.raises(ExportMismatch, match="at least 256 images, not on 10"):
        to_onnx.compare(model, file, tiny.split(10, 4).images)


@pytest.mark.parametrize("temperature", [1, 3, 0.5])
def test_the_temperature_is_inside_the_graph(temperature: float) -> None:
    keras.utils.set_random_seed(3)
    network = build(tiny.RECIPE, 2)
    network.layers[-1].kernel.assign(20 * network.layers[-1].kernel)  # for confident answers
    images = tiny.split(64, 4).images
    logits = np.asarray(network(images))
    answers = np.asarray(to_onnx.with_probabilities(network, temperature)(images))
    scaled = np.asarray(logits / temperature, np.float32)
    np.testing.assert_allclose(answers, softmax(scaled), atol=1e-6)
    np.testing.assert_array_equal(answers.argmax(axis=1), logits.argmax(axis=1))
