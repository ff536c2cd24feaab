"""Quantise an exported float32 graph to int8 weights and activations, by onnxruntime's quantiser.

Knows ONNX graphs; knows nothing of Keras or of publishing. Every operator that onnxruntime supports
in int8 is quantised except the last: logits, temperature and softmax stay float32, so that
confidence has no steps. The quantiser's own pre-processing changes nothing here: the converter has
already folded everything.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from training.evaluation.evaluation import Judgement

IMAGES, BATCH, SEED = 512, 32, 1  # of the calibration
MOST_LOST = 1  # of 1,000 test images: a tenth of a percentage point
FASTER = 1.1  # least speed-up; less is within the noise of a busy machine

PRODUCTS = ("Conv", "Gemm", "MatMul")
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # suppresses a warning of the quantiser


def quantize(graph: onnx.ModelProto, images: NDArray[np.uint8]) -> onnx.ModelProto:
    """Return the graph in int8 (QDQ), with the ranges of its activations from a sample of training
    images ``(N, H, W, C)``; input and output stay as they are."""
    prepared = onnx.ModelProto()
    prepared.CopyFrom(graph)  # the quantiser changes it
    onnx.helper.set_model_props(prepared, PREPARED)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "int8.onnx")
        quantize_static(
            prepared,
            file,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Weights of 7 bits: with 8, processors without VNNI add up in 16 bits and saturate, and
            # the file would be less accurate there than where it was judged. It cost no accuracy.
            reduce_range=True,
            nodes_to_exclude=_tail(graph),
            extra_options={
                # The mean of the batches' extremes, not the extremes of all images: answers
                # differed from those of float32 by a tenth to a third less.
                "CalibMovingAverage": True,
                "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
            },
        )
        made = onnx.load(file)
    onnx.checker.check_model(made, full_check=True)
    return made


def refusal(float32: Judgement, int8: Judgement) -> str:
    """Return the reason not to publish the int8 file, or an empty string."""
    lost, images = float32.score.correct - int8.score.correct, float32.score.images
    if 1000 * lost > MOST_LOST * images:
        return f"it is {100 * lost / images:.2f} points less accurate ({int8.summary})"
    if int8.milliseconds * FASTER > float32.milliseconds:
        return f"it is not {FASTER - 1:.0%} faster ({int8.summary})"
    return ""


def _tail(graph: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes after the last product."""
    nodes = list(graph.graph.node)
    last = max((n for n, node in enumerate(nodes) if node.op_type in PRODUCTS), default=-1)
    return [node.name for node in nodes[last + 1 :]]


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """A fixed sample of images, in batches, for the quantiser."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        count = min(IMAGES, len(images))
        chosen = np.random.default_rng(SEED).choice(len(images), count, replace=False)
        self._batches = iter(np.split(images[chosen], range(BATCH, count, BATCH)))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch, by the name of the graph's input, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}
