"""The Open Inference Protocol, version 2, over REST: what its bodies ask for, and its answers.

From https://github.com/kserve/open-inference-protocol (``inference_rest.md``), with two of Triton's
extensions: binary tensor data, and classification. Knows no server and no framework.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving import __version__
from serving.call import counts
from serving.errors import BadRequest
from serving.images import PixelSpec
from serving.model import Model
from serving.tensors import Image, Wanted, loaded, pixels, shape
from serving.uploads import Limits, check_count, from_base64

SERVER = {
    "name": "convserve",
    "version": __version__,
    "extensions": ["binary_tensor_data", "classification"],
}
LIVE = {"live": True}
READY = {"live": True, "ready": True}  # the specification's member, and the one that servers send
PLATFORM = "onnxruntime_onnx"

INPUT, OUTPUT = "image", "probabilities"
LENGTH = 4  # bytes before each element of a binary BYTES tensor: how many it has


@dataclass(frozen=True)
class Infer(Wanted):
    """A request: its images, and how their probabilities are wanted."""

    id: str | None = None
    binary: bool = False
    classes: int = 0  # so many of the best, by value, index and label; 0 for the tensor itself


@dataclass(frozen=True)
class Tensor:
    """An input as it came: its values in JSON, or the bytes that followed the JSON."""

    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | memoryview


def metadata(model: Model, versions: Sequence[int]) -> dict[str, Any]:
    """What a model takes and gives."""
    labels = [-1, len(model.labels)]
    return {
        "name": model.name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *shape(model.spec)]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": labels}],
    }


def parse(data: bytes, spec: PixelSpec, limits: Limits, *, head: str | None = None) -> Infer:
    """The request of a body; ``head`` is the header ``Inference-Header-Content-Length``.

    Raises:
        BadRequest: it is malformed, or is no input of the model.
        RequestTooLarge: it has more images, or more numbers, than the limits.
    """
    length = len(data) if head is None else _head(head, len(data))
    body = loaded(data[:length], spec, limits)
    parameters = _member(body, "parameters", dict) or {}
    binary = _member(parameters, "binary_data_output", bool) or False
    binary, classes = _output(_member(body, "outputs", list) or [], binary)
    tensor = _input(_member(body, "inputs", list) or [], memoryview(data)[length:])
    return Infer(
        images=_images(tensor, spec, limits),
        seconds=_number(parameters, "timeout") / 1e6 or math.inf,  # microseconds, as for Triton
        id=_id(body),
        binary=binary,
        classes=classes,
    )


def _id(body: dict[str, Any]) -> str | None:
    """What the answer repeats."""
    told: str | None = _member(body, "id", str)
    try:
        (told or "").encode()
    except UnicodeEncodeError:
        raise BadRequest("The 'id' is no text: half of a surrogate pair is missing.") from None
    return told


def answer(
    request: Infer, model: Model, rows: Sequence[Sequence[float]]
) -> tuple[dict[str, Any], bytes]:
    """The JSON of an answer, and the binary tensor that follows it, if one does."""
    if request.classes:
        values = [text for row in rows for text in _best(row, request.classes, model.labels)]
        datatype, raw = "BYTES", b"".join(_prefixed(text.encode()) for text in values)
    else:
        flat = np.asarray(rows, "<f4").ravel()
        datatype, values, raw = "FP32", flat.tolist(), flat.tobytes()
    each = len(values) // len(rows)
    tensor: dict[str, Any] = {"name": OUTPUT, "datatype": datatype, "shape": [len(rows), each]}
    if request.binary:
        tensor["parameters"] = {"binary_data_size": len(raw)}
    else:
        tensor["data"] = values
    named = {} if request.id is None else {"id": request.id}
    told = {"model_name": model.name, "model_version": str(model.version), **named}
    return {**told, "outputs": [tensor]}, raw if request.binary else b""


def _best(row: Sequence[float], count: int, labels: Sequence[str]) -> list[str]:
    order = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:count]
    return [f"{row[index]:f}:{index}:{labels[index]}" for index in order]


def _prefixed(element: bytes) -> bytes:
    return len(element).to_bytes(LENGTH, "little") + element


def _head(text: str, size: int) -> int:
    if not counts(text) or int(text) > size:
        raise BadRequest(
            f"The header Inference-Header-Content-Length is {text[:40]!r}, and the body has {size}"
            " bytes. Expected how many of them are the JSON."
        )
    return int(text)


def _member(of: dict[str, Any], name: str, kind: type[Any]) -> Any:
    """A member that may be missing, or null."""
    value = of.get(name)
    if value is not None and type(value) is not kind:
        raise BadRequest(f"The member {name!r} is no {_KINDS[kind]}.")
    return value


_KINDS = {dict: "object", list: "list", str: "string", bool: "boolean", int: "whole number"}


def _number(parameters: dict[str, Any], name: str) -> int:
    """A parameter that counts; 0, as when it is missing, for none."""
    value = _member(parameters, name, int) or 0
    if not 0 <= value < 2**63:
        raise BadRequest(f"The parameter {name!r} is out of its range. Expected a count.")
    return int(value)


def _output(outputs: list[Any], binary: bool) -> tuple[bool, int]:
    """Whether the one output is wanted in binary, and so many classes of it."""
    if not outputs:
        return binary, 0
    parameters = _parameters(outputs, OUTPUT, "output")
    asked = _member(parameters, "binary_data", bool)
    return binary if asked is None else asked, _number(parameters, "classification")


def _parameters(tensors: list[Any], name: str, what: str) -> dict[str, Any]:
    """Those of the one tensor that a model has on this side.

    Unknown ones are ignored, as by other servers: clients send some to whichever server they meet.
    """
    names = [each.get("name") if isinstance(each, dict) else None for each in tensors]
    if names != [name]:
        raise BadRequest(f"The {what}s are not the model's. Expected exactly one, {name!r}.")
    parameters: dict[str, Any] = _member(tensors[0], "parameters", dict) or {}
    if parameters.get("shared_memory_region") is not None:
        raise BadRequest("Tensors in shared memory are not supported. Send them in the body.")
    return parameters


def _input(inputs: list[Any], rest: memoryview) -> Tensor:
    parameters = _parameters(inputs, INPUT, "input")
    tensor = inputs[0]
    size, data = _member(parameters, "binary_data_size", int), _member(tensor, "data", list)
    if (size is None) is (data is None):
        raise BadRequest("The input needs either 'data' or a parameter 'binary_data_size'.")
    if (size or 0) != len(rest):
        raise BadRequest(
            f"{len(rest)} bytes follow the JSON. Expected {size or 0}, by 'binary_data_size'."
        )
    datatype = _member(tensor, "datatype", str) or ""
    sizes = _member(tensor, "shape", list) or []
    if not all(type(each) is int for each in sizes):
        raise BadRequest("The input's 'shape' is no list of whole numbers.")
    return Tensor(datatype, tuple(sizes), rest if data is None else data)


def _images(tensor: Tensor, spec: PixelSpec, limits: Limits) -> Sequence[Image]:
    read: Callable[[Tensor], Sequence[Image]]
    known: list[tuple[int, ...]]
    if tensor.datatype == "UINT8":
        read, known = _pixels, [shape(spec)]
    elif tensor.datatype == "BYTES":
        read, known = _files, [(), (1,)]
    else:
        raise BadRequest(
            f"The input's datatype is {tensor.datatype[:40]!r}. Expected 'UINT8' for pixels, or"
            " 'BYTES' for image files."
        )
    if not tensor.shape or tensor.shape[1:] not in known:
        expected = " or ".join(f"[{', '.join(map(str, ('N', *each)))}]" for each in known)
        raise BadRequest(f"The input's shape is {[*tensor.shape]}. Expected {expected}.")
    check_count(tensor.shape[0], limits)
    return read(tensor)


def _pixels(tensor: Tensor) -> Sequence[Image]:
    if isinstance(tensor.data, list):
        return list(pixels(tensor.data, tensor.shape))
    _check_size(len(tensor.data), math.prod(tensor.shape))
    return list(np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape))


def _files(tensor: Tensor) -> Sequence[Image]:
    if isinstance(tensor.data, list):
        flat = [each[0] if _is_row(each) else each for each in tensor.data]
        if len(flat) != tensor.shape[0]:
            raise BadRequest(f"The data has {len(flat)} strings. Expected {tensor.shape[0]}.")
        return [from_base64(text) for text in flat]
    files, start, end = [], 0, len(tensor.data)
    for _ in range(tensor.shape[0]):
        size = int.from_bytes(tensor.data[start : start + LENGTH], "little")
        files.append(bytes(tensor.data[start + LENGTH : start + LENGTH + size]))
        start += LENGTH + size
        if start > end:
            break
    _check_size(end, start)
    return files


def _is_row(value: object) -> bool:
    return isinstance(value, list) and len(value) == 1


def _check_size(size: int, expected: int) -> None:
    if size != expected:
        raise BadRequest(f"The tensor has {size} bytes. Expected {expected}, by what it tells.")
