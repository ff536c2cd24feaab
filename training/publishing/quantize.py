"""Make an exported float32 graph cheaper: int8 weights and activations, by onnxruntime's quantiser.

Knows ONNX graphs; knows nothing of Keras or of publishing. Every operator that onnxruntime has in
int8 is quantised but for the last: logits, temperature and softmax stay float32, so that confidence
has no steps. Nothing is gained here from the quantiser's own pre-processing: the converter has
folded what it would fold, and the files come out the same.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from training.evaluation.evaluation import Judgement

IMAGES, BATCH, SEED = 512, 32, 1  # of the calibration
MOST_LOST = 1  # of 1,000 test images: a tenth of a point
FASTER = 1.1  # times at least; less is within what a busy machine blurs

PRODUCTS = ("Conv", "Gemm", "MatMul")
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # or the quantiser warns that it is not


def quantize(graph: onnx.ModelProto, images: NDArray[np.uint8]) -> onnx.ModelProto:
    """The graph in int8 (QDQ), the ranges of its activations taken from some of the training images
    ``(N, H, W, C)``; input and output stay as they are."""
    prepared = onnx.ModelProto()
    prepared.CopyFrom(graph)  # the quantiser writes into it
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
            # the file would be less right there than where it was judged. It cost no accuracy.
            reduce_range=True,
            nodes_to_exclude=_tail(graph),
            extra_options={
                # The mean of the batches' extremes, not the extremes of all images: answers
                # differed from float32's by a tenth to a third less.
                "CalibMovingAverage": True,
                "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
            },
        )
        made = onnx.load(file)
    onnx.checker.check_model(made, full_check=True)
    return made


def refusal(float32: Judgement, int8: Judgement) -> str:
    """Why the int8 file is not worth publishing; empty where it is."""
    lost, images = float32.score.correct - int8.score.correct, float32.score.images
    if 1000 * lost > MOST_LOST * images:
        return f"it is {100 * lost / images:.2f} points less accurate ({int8.told})"
    if int8.milliseconds * FASTER > float32.milliseconds:
        return f"it is not {FASTER - 1:.0%} faster ({int8.told})"
    return ""


def _tail(graph: onnx.ModelProto) -> list[str]:
    """The nodes after the last product."""
    nodes = list(graph.graph.node)
    last = max((n for n, node in enumerate(nodes) if node.op_type in PRODUCTS), default=-1)
    return [node.name for node in nodes[last + 1 :]]


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Hands the quantiser a fixed choice of images, in batches."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        count = min(IMAGES, len(images))
        chosen = np.random.default_rng(SEED).choice(len(images), count, replace=False)
        self._batches: Iterator[NDArray[np.uint8]] = (
            images[chosen[start : start + BATCH]] for start in range(0, count, BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch, by the name of the graph's input; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}
