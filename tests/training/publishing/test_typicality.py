from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from tests.training import tiny
from training.errors import ExportMismatch
from training.evaluation import cost
from training.evaluation.scoring import run
from training.modelling.network import build, predict
from training.publishing import to_onnx, typicality
from training.publishing.quantize import quantize

TEMPERATURE = 1.5
VALIDATION = tiny.split(700, 2).images


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return build(tiny.RECIPE, 2)


@pytest.fixture(scope="module")
def graph(network: keras.Model) -> onnx.ModelProto:
    return to_onnx.convert(to_onnx.with_probabilities(network, TEMPERATURE))


def energies(network: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    logits = predict(network, images).astype(np.float64) / TEMPERATURE
    found: NDArray[np.float64] = np.log(np.exp(logits).sum(axis=1))
    return found


def share(values: NDArray[np.float64], ordinary: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the ordinary values that are at most as high."""
    return np.searchsorted(np.sort(ordinary), values, side="right") / len(ordinary)


def saved(graph: onnx.ModelProto, file: Path) -> Path:
    onnx.save(graph, file)
    return file


def test_it_is_the_share_of_validation_images_of_no_more_energy(
    network: keras.Model, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    whole = typicality.fit(graph, VALIDATION, tmp_path / "energy.onnx")
    images = np.concatenate([tiny.split(300, 3).images, np.full((1, 8, 8, 3), 255, np.uint8)])
    (found,) = run(saved(whole, tmp_path / "whole.onnx"), images, "typicality")
    assert found.shape == (301,)
    assert found.dtype == np.float32
    expected = share(energies(network, images), energies(network, VALIDATION))
    np.testing.assert_allclose(found, expected, atol=2 / 512)


def test_it_is_uniform_on_ordinary_images(graph: onnx.ModelProto, tmp_path: Path) -> None:
    whole = typicality.fit(graph, VALIDATION, tmp_path / "energy.onnx")
    (found,) = run(saved(whole, tmp_path / "whole.onnx"), VALIDATION, "typicality")
    assert [np.mean(found <= q) for q in (0.01, 0.1, 0.5, 0.9)] == pytest.approx(
        [0.01, 0.1, 0.5, 0.9], abs=0.005
    )
    assert (found.min(), found.max()) == (0, 1)


def test_onnxruntime_can_fuse_the_same_nodes_as_before(graph: onnx.ModelProto) -> None:
    """A second reader of a value within the network would prevent that, and change the rounding."""
    whole = typicality.with_typicality(graph, np.arange(9, dtype=np.float32))
    before = graph.graph.node
    assert list(whole.graph.node[: len(before)]) == list(before)
    computed = {name for node in before for name in node.output}
    read = {name for node in whole.graph.node[len(before) :] for name in node.input}
    assert read & computed == set(before[-1].input)
    assert before[-1].op_type == "Softmax"


def test_the_probabilities_are_exactly_as_before(graph: onnx.ModelProto, tmp_path: Path) -> None:
    whole = typicality.fit(graph, VALIDATION, tmp_path / "energy.onnx")
    before, after = (
        run(saved(each, tmp_path / f"{n}.onnx"), VALIDATION, "probabilities")[0]
        for n, each in enumerate((graph, whole))
    )
    np.testing.assert_array_equal(before, after)
    assert [output.name for output in whole.graph.output] == ["probabilities", "typicality"]
    assert [output.name for output in graph.graph.output] == ["probabilities"]


def test_int8_has_its_own_and_keeps_it_in_float32(graph: onnx.ModelProto, tmp_path: Path) -> None:
    small = quantize(graph, tiny.dataset().train.images)
    whole = typicality.fit(small, VALIDATION, tmp_path / "energy.onnx")
    (found,) = run(saved(whole, tmp_path / "whole.onnx"), VALIDATION, "typicality")
    assert np.mean(found <= 0.1) == pytest.approx(0.1, abs=0.005)
    quantised = {name for n in whole.graph.node if "Linear" in n.op_type for name in n.input}
    assert not any(name.startswith(("energy", "typicality")) for name in quantised)


def test_the_cost_of_the_graph_stays_known(graph: onnx.ModelProto) -> None:
    whole = typicality.with_typicality(graph, np.arange(9, dtype=np.float32))
    assert cost.macs(whole) == cost.macs(graph)


def ending_in(kind: str) -> onnx.ModelProto:
    """Return a graph of one logit, whose probabilities are computed by one operator."""
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 1])
    output = helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", 1])
    node = helper.make_node(kind, ["logits"], ["probabilities"])
    return helper.make_model(
        helper.make_graph([node], "one", [logits], [output]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def of_energies(*energies: float, answers: list[float]) -> list[float]:
    """Return the typicality of images whose only logit is as given."""
    whole = typicality.with_typicality(ending_in("Softmax"), np.array(energies, np.float32))
    session = onnxruntime.InferenceSession(whole.SerializeToString())
    given = np.array(answers, np.float32)[:, None]
    found: list[float] = session.run(["typicality"], {"logits": given})[0].tolist()
    return found


def test_it_is_0_below_and_1_from_the_highest_and_between_them_interpolated() -> None:
    found = of_energies(0, 10, 20, answers=[-1e6, -1, 0, 5, 10, 15, 20, 21, 1e6])
    assert found == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1], abs=1e-5)
    assert min(found) >= 0
    assert max(found) <= 1


def test_equal_energies_are_no_more_typical_than_each_other() -> None:
    assert of_energies(3, 3, 3, answers=[2.9, 3, 3.1]) == [0, 1, 1]
    found = of_energies(1, 3, 3, 3, 5, answers=[2.99, 3])
    assert found == pytest.approx([0.25, 0.75], abs=0.01)


def test_a_graph_without_softmax_is_refused() -> None:
    with pytest.raises(
        ExportMismatch, match=r"no logits\. Expected 'probabilities' from a softmax"
    ):
        typicality.with_typicality(ending_in("Sigmoid"), np.zeros(3, np.float32))
