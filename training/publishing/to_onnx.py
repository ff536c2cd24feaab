"""Turn a trained Keras network into one self-describing ONNX file, prove that it answers the same,
and publish it by a rename.

The only module that knows TensorFlow and the ONNX format. Knows the contract in
``models/README.md``; knows nothing of recipes' training or of reports.

The traps behind the choices made here: tf2onnx refuses opsets above 18 and writes an invalid
file, without raising, for operators that it cannot convert; a network built under a mixed
precision policy makes a file that onnxruntime refuses. So the network is rebuilt under float32,
exported at opset 17, checked, reloaded and compared.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from training import lock
from training.errors import ExportMismatch, PublishFailed
from training.evaluation.scoring import probabilities

log = logging.getLogger(__name__)

OPSET = 17
SCHEMA = "1"
TOLERANCE = 1e-4  # of a probability; float32 sums in another order differ by about 1e-6
MIN_COMPARED = 256


def with_probabilities(network: keras.Model, temperature: float) -> keras.Model:
    """The network that is published: uint8 ``image`` to calibrated float32 ``probabilities``,
    the softmax of the logits divided by the temperature."""
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / temperature, name="temperature")(network(image))
    return keras.Model(image, keras.layers.Softmax(name="probabilities")(x))


def to_onnx(model: keras.Model, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Convert a float32 model; names and shapes are those of the contract."""
    import tensorflow as tf
    import tf2onnx

    # A GPU would round what it multiplies to ten bits, and no file could be compared with it.
    tf.config.experimental.enable_tensor_float_32_execution(enabled=False)
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="image")]
    graph, _ = tf2onnx.convert.from_keras(model, signature, opset=OPSET)
    _rename_output(graph, "probabilities")
    for value in (graph.graph.input[0], graph.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del graph.graph.value_info[:]  # they name the free dimension as the converter did
    onnx.helper.set_model_props(graph, dict(metadata))
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _rename_output(model: onnx.ModelProto, name: str) -> None:
    old = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [name if value == old else value for value in node.output]
        node.input[:] = [name if value == old else value for value in node.input]
    model.graph.output[0].name = name


def compare(model: keras.Model, file: Path, images: NDArray[np.uint8]) -> float:
    """The largest difference of a probability between the Keras model and the file, over uint8
    images ``(N, H, W, C)``.

    Raises:
        ExportMismatch: it exceeds the tolerance, or there are fewer than 256 images.
    """
    if len(images) < MIN_COMPARED:
        raise ExportMismatch(
            f"An export is compared on at least {MIN_COMPARED} images, not on {len(images)}."
        )
    expected = np.asarray(model.predict(images, batch_size=MIN_COMPARED, verbose=0))
    difference = float(np.abs(expected - probabilities(file, images)).max())
    if not difference <= TOLERANCE:  # a NaN is no agreement either
        raise ExportMismatch(
            f"{file.name} differs from the network by {difference:.2g}; allowed is {TOLERANCE:.0e}."
        )
    return difference


@contextmanager
def turn(models: Path, name: str) -> Iterator[int]:
    """Wait for our turn to publish a model; the version that is ours until the block ends.

    Raises:
        PublishFailed: the folder cannot be written.
    """
    path = models / f".{name}.lock"
    try:
        models.mkdir(parents=True, exist_ok=True)
        file = lock.take(path, waiting=f"another process is publishing {name}; waiting for it")
    except OSError as exc:
        raise PublishFailed(f"{path} could not be written: {exc}.") from exc
    with file:
        for left in (models / name).glob(".*.partial-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        try:
            yield next_version(models, name)
        finally:
            path.unlink(missing_ok=True)


def next_version(models: Path, name: str) -> int:
    """One above the highest published version of a model."""
    folders = (models / name).iterdir() if (models / name).is_dir() else ()
    return max((int(folder.name) for folder in folders if folder.name.isdigit()), default=0) + 1


@contextmanager
def publication(models: Path, name: str, version: int) -> Iterator[Path]:
    """A hidden folder to fill; given its ``SHA256SUMS`` and renamed to
    ``models/<name>/<version>`` when the block ends well, removed when it does not.

    Raises:
        PublishFailed: the version exists, or the folder cannot be written.
    """
    target = models / name / str(version)
    partial = target.with_name(f".{version}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            raise PublishFailed(
                f"{target} is published already, and a published version never changes."
            )
        _sum_up(partial)
        _sync(partial)  # or a machine that stops might keep the names alone
        partial.rename(target)
    except OSError as exc:
        raise PublishFailed(f"{target} could not be written: {exc}.") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            partial.parent.rmdir()  # a first version that failed leaves no empty model behind


def _sum_up(folder: Path) -> None:
    """Write what ``sha256sum --check SHA256SUMS`` reads, of every file."""
    lines = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{found}  {path.relative_to(folder).as_posix()}\n")
    (folder / "SHA256SUMS").write_text("".join(lines), "utf-8")


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def properties(values: Mapping[str, Any]) -> dict[str, str]:
    """Metadata values as the file holds them: strings as they are, all else as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in values.items()
    }
