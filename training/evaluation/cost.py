"""The cost of one image in an exported file: multiply-accumulates, and milliseconds at one thread.

Knows ONNX graphs and onnxruntime; knows nothing of Keras or of how the file was made.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from training.errors import ExportMismatch

WARM_UP, TIMED = 5, 51

Shapes = Mapping[str, tuple[int, ...]]


def macs(model: onnx.ModelProto) -> int:
    """Count the multiply-accumulates of one image in the convolutions and matrix products of a
    graph; all other operators cost a hundredth of them in the networks of this project. Raise
    ``ExportMismatch`` if a shape cannot be inferred, or a product is of another kind."""
    if others := UNKNOWN & {node.op_type for node in model.graph.node}:
        raise ExportMismatch(
            f"The cost of {', '.join(sorted(others))} is unknown. Expected the products of a graph "
            f"to be {', '.join(COUNTED)}."
        )
    shapes = _shapes(model)
    return sum(
        COUNTED[node.op_type](node, shapes) for node in model.graph.node if node.op_type in COUNTED
    )


def milliseconds(file: Path) -> float:
    """Measure the median processor time of one image on this machine, with one thread; other
    processes affect it little."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the calling thread
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    image = np.zeros((1, *session.get_inputs()[0].shape[1:]), np.uint8)
    spent = []
    for _ in range(WARM_UP + TIMED):
        began = time.thread_time()
        session.run(None, {"image": image})
        spent.append(time.thread_time() - began)
    return float(np.median(spent[WARM_UP:])) * 1000


def _shapes(model: onnx.ModelProto) -> Shapes:
    """Return the shape of every value in the graph, for one image."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    for output in single.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(single, strict_mode=True, data_prop=True).graph
    inferred = {
        value.name: tuple(each.dim_value for each in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return inferred | {each.name: tuple(each.dims) for each in graph.initializer}


def _convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    _, *weights = _known(shapes, node.input[1])  # (filters, channels of a group, height, width)
    return math.prod(_known(shapes, node.output[0])) * math.prod(weights)


def _product(node: onnx.NodeProto, shapes: Shapes) -> int:
    left = _known(shapes, node.input[0])
    transposed = any(each.name == "transA" and each.i for each in node.attribute)
    return math.prod(_known(shapes, node.output[0])) * left[0 if transposed else -1]


def _known(shapes: Shapes, name: str) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if not shape or 0 in shape:
        raise ExportMismatch(
            f"The cost of the graph is unknown: {name!r} has shape {shape}. "
            "Expected fixed sizes for one image."
        )
    return shape


COUNTED: dict[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _convolution,
    "Gemm": _product,
    "MatMul": _product,
}
UNKNOWN = {  # the other products that ONNX has
    *("ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "LSTM", "MatMulInteger"),
    *("QLinearConv", "QLinearMatMul", "RNN"),
}
