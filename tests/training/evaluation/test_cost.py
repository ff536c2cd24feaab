from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.tables import ROOT
from training.errors import ExportMismatch
from training.evaluation import cost


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)


def graph(*, twice: bool = False, height: str | int = 10) -> onnx.ModelProto:
    """Build a graph for 10×8 images: 4 filters of 3×3, 6 of 2×2 in two groups at stride 2, then two
    products."""
    copies = ["floats", "floats"] if twice else ["floats"]
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Concat", copies, ["copies"], axis=0),
        helper.make_node("Transpose", ["copies"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], group=2, strides=[2, 2]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w3"], ["e"]),
        helper.make_node("Gemm", ["e", "w4"], ["probabilities"], transB=1),
    ]
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, 8, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [
            *(weights("w1", 4, 3, 3, 3), weights("w2", 6, 2, 2, 2)),
            *(weights("w3", 72, 5), weights("w4", 2, 5)),
        ],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_multiply_accumulates_equal_those_counted_by_hand() -> None:
    first = (8 * 6 * 4) * (3 * 3 * 3)
    second = (4 * 3 * 6) * (2 * 2 * 2)  # each filter sees its group's half of the 4 channels
    products = 72 * 5 + 5 * 2
    assert cost.macs(graph()) == first + second + products


def test_repeated_work_costs_twice() -> None:
    assert cost.macs(graph(twice=True)) == 2 * cost.macs(graph())


def test_a_product_that_cannot_be_counted_is_reported() -> None:
    model = graph()
    model.graph.node[-2].op_type = "Einsum"
    with pytest.raises(ExportMismatch, match="The cost of Einsum is unknown"):
        cost.macs(model)


def test_a_graph_without_fixed_sizes_is_refused() -> None:
    with pytest.raises(ExportMismatch, match="Expected fixed sizes"):
        cost.macs(graph(height="H"))


@pytest.mark.parametrize(
    ("model", "millions"), [("digits", 3.4), ("cifar10", 21.6), ("cats_vs_dogs", 192.3)]
)
def test_published_files_have_a_known_cost(model: str, millions: float) -> None:
    file = ROOT / "models" / model / "1" / "model.onnx"
    assert cost.macs(onnx.load(file)) / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_time_of_an_image_is_measured(tmp_path: Path) -> None:
    onnx.save(graph(), tmp_path / "model.onnx")
    assert cost.milliseconds(tmp_path / "model.onnx") > 0
