"""The Open Inference Protocol, version 2, over REST: its requests and answers.

From https://github.com/kserve/open-inference-protocol (``inference_rest.md``), with two of Triton's
extensions: binary tensor data, and classification. Knows no server and no framework.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from serving import __version__
from serving.api.body import Limits, check_count, from_base64
from serving.api.exchange import is_positive
from serving.api.pipeline import Prediction
from serving.api.tensors import Wanted, loaded, packed, pixels, shape, unpacked
from serving.errors import BadRequest
from serving.inference.images.decoder import Image
from serving.inference.images.pixels import PixelSpec
from serving.inference.models.model import Model

SERVER = {
    "name": "convserve",
    "version": __version__,
    "extensions": ["binary_tensor_data", "classification"],
}
LIVE = {"live": True}
READY = {"live": True, "ready": True}  # the member of the specification, and that of other servers

INPUT, OUTPUT, IDS, TYPICALITY = "image", "probabilities", "id", "typicality"


@dataclass(frozen=True)
class Output:
    """A requested output tensor."""

    name: str
    binary: bool
    classes: int = 0  # the number of best classes as value:index:label; 0 for the tensor itself


@dataclass(frozen=True)
class Infer(Wanted):
    """A request: its images and the requested outputs."""

    id: str | None = None
    outputs: Sequence[Output] = ()


@dataclass(frozen=True)
class Tensor:
    """An input tensor: its values in JSON, or the bytes that follow the JSON."""

    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | memoryview


def metadata(model: Model, versions: Sequence[int]) -> dict[str, Any]:
    """Return the inputs and outputs of a model."""
    typicality = {"name": TYPICALITY, "datatype": "FP32", "shape": [-1]}
    return {
        "name": model.name,
        "versions": [str(version) for version in versions],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *shape(model.spec)]}],
        "outputs": [
            {"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(model.labels)]},
            {"name": IDS, "datatype": "BYTES", "shape": [-1]},
            *([typicality] if model.typical else []),
        ],
    }


def parse(
    data: bytes,
    spec: PixelSpec,
    limits: Limits,
    *,
    head: str | None = None,
    typical: bool = False,
) -> Infer:
    """Parse a body; ``head`` is the header ``Inference-Header-Content-Length``, and ``typical`` is
    True if the model has typicality.

    Raises:
        BadRequest: the body is malformed, or is not an input of the model.
        RequestTooLarge: the body has more images, or more numbers, than the limits.
    """
    if head is not None and (not is_positive(head) or int(head) > len(data)):
        raise BadRequest(
            f"The header Inference-Header-Content-Length is {head[:40]!r}. Expected the length of"
            f" the JSON, at most {len(data)} bytes."
        )
    length = len(data) if head is None else int(head)
    body = loaded(data[:length], spec, limits)
    parameters = _member(body, "parameters", dict) or {}
    binary = _member(parameters, "binary_data_output", bool) or False
    known = [OUTPUT, IDS, *([TYPICALITY] if typical else [])]
    outputs = _outputs(_member(body, "outputs", list) or [], known, binary)
    tensor = _input(_member(body, "inputs", list) or [], memoryview(data)[length:])
    return Infer(
        images=_images(tensor, spec, limits),
        seconds=_number(parameters, "timeout") / 1e6 or math.inf,  # microseconds, as for Triton
        id=_id(body),
        ids=any(output.name == IDS for output in outputs),
        outputs=outputs,
    )


def _id(body: dict[str, Any]) -> str | None:
    """Return the id that the answer repeats."""
    found: str | None = _member(body, "id", str)
    try:
        (found or "").encode()
    except UnicodeEncodeError:
        raise BadRequest("The 'id' is not valid text: it holds half a surrogate pair.") from None
    return found


def answer(
    request: Infer, model: Model, predictions: Sequence[Prediction]
) -> tuple[dict[str, Any], bytes]:
    """Return the JSON of an answer, and the binary tensors that follow it."""
    made = [_tensor(output, model, predictions) for output in request.outputs]
    named = {} if request.id is None else {"id": request.id}
    head = {"model_name": model.name, "model_version": str(model.version), **named}
    tensors, raw = zip(*made, strict=True)
    return {**head, "outputs": tensors}, b"".join(raw)


def _tensor(
    output: Output, model: Model, predictions: Sequence[Prediction]
) -> tuple[dict[str, Any], bytes]:
    """Return the JSON of an output tensor, and its bytes if it is binary."""
    values: list[Any]
    sizes = [len(predictions)]
    if output.name == IDS:
        values = [each.id for each in predictions]
    elif output.name == TYPICALITY:
        values = [each.typicality for each in predictions]
    else:
        rows: list[Any] = [each.row for each in predictions]
        if output.classes:
            rows = [_best(row, output.classes, model.labels) for row in rows]
        values, sizes = list(chain.from_iterable(rows)), [len(rows), len(rows[0])]
    texts = isinstance(values[0], str)
    tensor = {"name": output.name, "datatype": "BYTES" if texts else "FP32", "shape": sizes}
    if not output.binary:
        return {**tensor, "data": values}, b""
    raw = packed(values) if texts else np.asarray(values, "<f4").tobytes()
    return {**tensor, "parameters": {"binary_data_size": len(raw)}}, raw


def _best(row: Sequence[float], count: int, labels: Sequence[str]) -> list[str]:
    order = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:count]
    return [f"{row[index]:f}:{index}:{labels[index]}" for index in order]


def _member(of: dict[str, Any], name: str, kind: type[Any]) -> Any:
    """Return a member, or None if it is missing or null."""
    value = of.get(name)
    if value is not None and type(value) is not kind:
        raise BadRequest(f"The member {name!r} is not {_KINDS[kind]}.")
    return value


_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "an integer"}


def _number(parameters: dict[str, Any], name: str) -> int:
    """Return a non-negative integer parameter; 0 if it is missing."""
    value = _member(parameters, name, int) or 0
    if not 0 <= value < 2**63:
        raise BadRequest(f"The parameter {name!r} is out of range. Expected 0 or more.")
    return int(value)


def _outputs(wanted: list[Any], known: list[str], binary: bool) -> list[Output]:
    """Return the requested outputs, by default probabilities and ids; ``binary`` is their default
    encoding."""
    if not wanted:
        return [Output(OUTPUT, binary), Output(IDS, binary)]
    names = _names(wanted)
    if not all(name in known and names.count(name) == 1 for name in names):
        raise BadRequest(
            "The outputs are not those of the model. Expected"
            f" {' or '.join(map(repr, known))}, each once."
        )
    return [_output(each, binary) for each in wanted]


def _output(tensor: dict[str, Any], binary: bool) -> Output:
    parameters = _parameters(tensor)
    asked = _member(parameters, "binary_data", bool)
    classes = _number(parameters, "classification")
    return Output(tensor["name"], binary if asked is None else asked, classes)


def _names(tensors: list[Any]) -> list[Any]:
    return [each.get("name") if isinstance(each, dict) else None for each in tensors]


def _parameters(tensor: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a tensor; unknown ones are ignored, as by other servers."""
    parameters: dict[str, Any] = _member(tensor, "parameters", dict) or {}
    if parameters.get("shared_memory_region") is not None:
        raise BadRequest("Tensors in shared memory are not supported. Send them in the body.")
    return parameters


def _input(inputs: list[Any], rest: memoryview) -> Tensor:
    if _names(inputs) != [INPUT]:
        raise BadRequest(f"The inputs are not those of the model. Expected exactly one, {INPUT!r}.")
    tensor = inputs[0]
    parameters = _parameters(tensor)
    size, data = _member(parameters, "binary_data_size", int), _member(tensor, "data", list)
    if (size is None) is (data is None):
        raise BadRequest("The input needs either 'data' or a parameter 'binary_data_size'.")
    if (size or 0) != len(rest):
        raise BadRequest(
            f"{len(rest)} bytes follow the JSON. Expected 'binary_data_size', {size or 0}."
        )
    datatype = _member(tensor, "datatype", str) or ""
    sizes = _member(tensor, "shape", list) or []
    if not all(type(each) is int for each in sizes):
        raise BadRequest("The input's 'shape' is not a list of integers.")
    return Tensor(datatype, tuple(sizes), rest if data is None else data)


def _images(tensor: Tensor, spec: PixelSpec, limits: Limits) -> Sequence[Image]:
    of_files: tuple[tuple[int, ...], ...] = ((), (1,))
    known = {"UINT8": (shape(spec),), "BYTES": of_files}.get(tensor.datatype)
    if known is None:
        raise BadRequest(
            f"The input's datatype is {tensor.datatype[:40]!r}. Expected 'UINT8' for pixels, or"
            " 'BYTES' for image files."
        )
    if not tensor.shape or tensor.shape[1:] not in known:
        expected = " or ".join(f"[{', '.join(map(str, ('N', *each)))}]" for each in known)
        raise BadRequest(f"The input's shape is {[*tensor.shape]}. Expected {expected}.")
    check_count(tensor.shape[0], limits)
    if tensor.datatype == "BYTES":
        return _files(tensor)
    return list(pixels(tensor.data, tensor.shape))


def _files(tensor: Tensor) -> Sequence[Image]:
    if isinstance(tensor.data, list):
        flat = [each[0] if type(each) is list and len(each) == 1 else each for each in tensor.data]
        if len(flat) != tensor.shape[0]:
            raise BadRequest(f"The data has {len(flat)} strings. Expected {tensor.shape[0]}.")
        return [from_base64(text) for text in flat]
    return unpacked(tensor.data, tensor.shape[0])
