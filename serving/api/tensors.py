"""Images as the inference protocols send them: files, or pixels ready for the graph.

Holds what these protocols share: the bound on their JSON, and lists of numbers. Knows the pixels of
a model; knows no protocol.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.api.body import Limits
from serving.errors import BadRequest, RequestTooLarge
from serving.inference.images.decoder import Image
from serving.inference.images.pixels import PixelSpec

# Numbers in one JSON text. Parsing blocks the event loop: 12 ms for this many pixels, some 80 ms
# for this many nested lists, the slowest values.
NUMBERS = 250_000
DIGITS = 19  # of a number: 64 bits. Parsing 30 MB of numbers of 4,000 digits takes 600 ms
LENGTH = 4  # bytes of the length before each element of a binary BYTES tensor
EXTRA_COMMAS = 64  # between members, and within names and parameters


@dataclass(frozen=True)
class Wanted:
    """The content of a body."""

    images: Sequence[Image]
    seconds: float = math.inf  # from the beginning of the request to its deadline
    ids: bool = True  # the answer includes the prediction ids


def loaded(text: bytes, spec: PixelSpec, limits: Limits) -> dict[str, Any]:
    """Parse the JSON object of a request.

    Raises:
        BadRequest: ``text`` is not a JSON object.
        RequestTooLarge: it has more numbers than the largest allowed images.
    """
    most = min(limits.images * math.prod(shape(spec)), NUMBERS)
    # A list needs commas, so this bounds at no cost what the JSON parser allocates.
    if text.count(b",") > most + EXTRA_COMMAS:
        raise RequestTooLarge(
            f"The JSON has too many values. Expected at most {most} numbers and"
            f" {limits.images} images. Image files, or binary tensors, are smaller."
        )
    try:
        body = json.loads(text, parse_int=_WHOLE.__getitem__, parse_float=_fraction)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"The body is not JSON: {exc}.") from exc
    if not isinstance(body, dict):
        raise BadRequest("The JSON is not an object.")
    return body


class _Whole(dict[str, int]):
    """Numbers by their text: looking a pixel up costs no more than parsing it."""

    def __missing__(self, text: str) -> int:
        if len(text) > DIGITS + 1:
            raise BadRequest(f"A number has more than {DIGITS} digits: {text[:DIGITS]}….")
        return int(text)


_WHOLE = _Whole({str(pixel): pixel for pixel in range(256)})


def _fraction(text: str) -> float:
    raise BadRequest(
        f"The JSON has the number {text[:20]}. Expected no fractions: pixels are integers from 0"
        " to 255."
    )


def shape(spec: PixelSpec) -> tuple[int, int, int]:
    """Return height, width and channels."""
    return spec.height, spec.width, spec.channels


def pixels(numbers: list[Any] | memoryview, expected: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return uint8 pixels of this shape from bytes or a flat list in C order, or from nested lists.

    Raises:
        BadRequest: ``numbers`` are not pixels of this shape.
    """
    flat = numbers
    if isinstance(flat, list) and flat and isinstance(flat[0], list):
        _check_lengths([flat], expected[0])
        for size in expected[1:]:
            _check_lengths(flat, size)
            flat = list(chain.from_iterable(flat))
    unit = "numbers" if isinstance(flat, list) else "bytes"
    if len(flat) != math.prod(expected):
        raise BadRequest(f"The data has {len(flat)} {unit}. Expected {math.prod(expected)}.")
    try:
        data = bytes(flat) if isinstance(flat, list) else flat
        return np.frombuffer(data, np.uint8).reshape(expected)
    except (TypeError, ValueError):
        raise BadRequest("The data are not pixels. Expected integers from 0 to 255.") from None


def packed(texts: Sequence[str]) -> bytes:
    """Return the bytes of a binary BYTES tensor."""
    elements = [text.encode() for text in texts]
    return b"".join(len(each).to_bytes(LENGTH, "little") + each for each in elements)


def unpacked(data: memoryview, count: int) -> list[bytes]:
    """Return the elements of a binary BYTES tensor, or raise BadRequest if they do not fill it."""
    elements, start = [], 0
    for _ in range(count):
        end = start + LENGTH + int.from_bytes(data[start : start + LENGTH], "little")
        elements.append(bytes(data[start + LENGTH : end]))
        start = end
    if start != len(data):
        raise BadRequest(f"The tensor has {len(data)} bytes. Expected {start}, by its lengths.")
    return elements


def _check_lengths(lists: Sequence[object], size: int) -> None:
    if not all(isinstance(each, list) and len(each) == size for each in lists):
        raise BadRequest("The data are not nested like their shape.")
