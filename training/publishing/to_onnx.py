"""Convert a trained Keras network to one self-describing ONNX file, and compare the two.

Knows TensorFlow, as only ``modelling.batch_norm`` does beside it, and the contract in
``models/README.md``; knows nothing of training, of versions or of reports.

tf2onnx refuses opsets above 18 and writes an invalid file, without raising, for operators that it
cannot convert; a network built under a mixed precision policy makes a file that onnxruntime
refuses. So the network is rebuilt under float32, exported at opset 17, checked, reloaded and
compared.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from training.errors import ExportMismatch
from training.evaluation.scoring import probabilities
from training.modelling.network import predict

OPSET = 17
SCHEMA = "2"
TOLERANCE = 1e-4  # of a probability; float32 sums in another order differ by about 1e-6
MIN_COMPARED = 256


def with_probabilities(network: keras.Model, temperature: float) -> keras.Model:
    """Return the network to publish: uint8 ``image`` to calibrated float32 ``probabilities``, the
    softmax of the logits divided by the temperature."""
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / temperature, name="temperature")(network(image))
    return keras.Model(image, keras.layers.Softmax(name="probabilities")(x))


def convert(model: keras.Model) -> onnx.ModelProto:
    """Convert a float32 model; its output is named as its last layer."""
    import tensorflow as tf
    import tf2onnx

    # A GPU would round products to ten bits, which no file could be compared with.
    tf.config.experimental.enable_tensor_float_32_execution(enabled=False)
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="image")]
    graph, _ = tf2onnx.convert.from_keras(model, signature, opset=OPSET)
    for value in (graph.graph.input[0], graph.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del graph.graph.value_info[:]  # they have the converter's name for the free dimension
    onnx.checker.check_model(graph, full_check=True)
    return graph


def save(graph: onnx.ModelProto, file: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph with its metadata: strings as they are, other values as JSON."""
    held = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in metadata.items()
    }
    onnx.helper.set_model_props(graph, held)
    onnx.save(graph, file)


def add_metadata(file: Path, key: str, value: Any) -> None:
    """Add a value to the metadata of a file, as JSON."""
    graph = onnx.load(file)
    graph.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    onnx.save(graph, file)


def compare(model: keras.Model, file: Path, images: NDArray[np.uint8]) -> float:
    """Return the largest difference of a probability between a Keras model and a file, over uint8
    images ``(N, H, W, C)``. Raise ``ExportMismatch`` if it exceeds the tolerance, or there are
    fewer than 256 images."""
    if len(images) < MIN_COMPARED:
        raise ExportMismatch(
            f"An export is compared on at least {MIN_COMPARED} images, not on {len(images)}."
        )
    difference = float(np.abs(predict(model, images) - probabilities(file, images)).max())
    if not difference <= TOLERANCE:  # NaN too
        raise ExportMismatch(
            f"{file.name} differs from the network by {difference:.2g}; allowed is {TOLERANCE:.0e}."
        )
    return difference
