"""Add ``typicality`` to an exported graph: how ordinary an image looks to the network.

Knows ONNX graphs; knows nothing of Keras or of publishing. The measure is the energy of the logits,
``logsumexp(logits / temperature)`` (Liu et al., *Energy-based out-of-distribution detection*, 2020,
where it is times ``-temperature``), which is low for images unlike those of the training. Its
distribution function on validation images, interpolated between quantiles in the graph itself,
makes it a share, 0 to 1.
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.errors import ExportMismatch
from training.evaluation import scoring

INTERVALS = 512  # between quantiles; 0.2 % of the validation images are in each
NARROWEST = 1e-6  # width of an interval: equal energies would divide by zero


def fit(graph: onnx.ModelProto, images: NDArray[np.uint8], file: Path) -> onnx.ModelProto:
    """Return the graph with the output ``typicality`` ``(N,)``: the share of these validation
    images ``(N, H, W, C)`` that look no more typical. ``file`` is overwritten: the graph is run
    from there, as precision and rounding are its own."""
    measured = _with_energy(graph)
    _output(measured, "energy", ["N", 1])
    onnx.save(measured, file)
    (energies,) = scoring.run(file, images, "energy")
    return with_typicality(graph, energies[:, 0])


def with_typicality(graph: onnx.ModelProto, energies: NDArray[np.float32]) -> onnx.ModelProto:
    """Return the graph with the distribution function of these energies ``(N,)``. Each interval
    between two quantiles contributes an equal share: none at its lower end, all at its upper."""
    made = _with_energy(graph)
    edges = np.quantile(energies.astype(np.float64), np.linspace(0, 1, INTERVALS + 1))
    for name, values in {
        "upper_ends": edges[1:],
        "slopes": 1 / np.maximum(np.diff(edges), NARROWEST),
        "none": np.array(-1),
        "all": np.array(0),
        "one": np.array(1),
    }.items():
        held = numpy_helper.from_array(values.astype(np.float32), f"typicality_{name}")
        made.graph.initializer.append(held)
    made.graph.node.extend(
        [
            # Relative to the upper end, so that an energy equal to it is in, however steep.
            _node("Sub", ["energy", "typicality_upper_ends"], "energy_beyond"),
            _node("Mul", ["energy_beyond", "typicality_slopes"], "energy_intervals"),
            _node("Clip", ["energy_intervals", "typicality_none", "typicality_all"], "lacking"),
            _node("ReduceMean", ["lacking"], "lacking_share", axes=[1], keepdims=0),
            _node("Add", ["lacking_share", "typicality_one"], "typicality"),
        ]
    )
    _output(made, "typicality", ["N"])
    onnx.checker.check_model(made, full_check=True)
    return made


def _with_energy(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the graph that also computes ``energy`` ``(N, 1)``."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    made.graph.node.append(
        _node("ReduceLogSumExp", [_logits(graph)], "energy", axes=[1], keepdims=1)
    )
    return made


def _logits(graph: onnx.ModelProto) -> str:
    """Return the name of the logits divided by the temperature. A second reader of those before
    the division would keep onnxruntime from fusing it with the product, and change the rounding."""
    made = {output: node for node in graph.graph.node for output in node.output}
    softmax = made.get("probabilities")
    if softmax is None or softmax.op_type != "Softmax":
        raise ExportMismatch("The graph has no logits. Expected 'probabilities' from a softmax.")
    return str(softmax.input[0])


def _node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"typicality/{output}", **attributes)


def _output(graph: onnx.ModelProto, name: str, shape: list[str | int]) -> None:
    graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
