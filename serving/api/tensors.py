"""Images as the inference protocols send them: files, or pixels ready for the graph.

What those protocols share: the bound on their JSON, and lists of numbers. Knows a model's pixels;
knows no protocol.
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

# Numbers of one JSON text. While it is parsed the loop does nothing else: 12 ms for so many pixels,
# some 80 ms for as many of the dearest values, which are lists in lists.
NUMBERS = 250_000
DIGITS = 19  # of a number: 64 bits; to parse 30 MB of numbers of 4,000 digits takes 600 ms
EXTRA_COMMAS = 64  # between members, and within names and parameters


@dataclass(frozen=True)
class Wanted:
    """What a body asks for: answers for images, in so many seconds since it began to come."""

    images: Sequence[Image]
    seconds: float = math.inf


def loaded(text: bytes, spec: PixelSpec, limits: Limits) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        BadRequest: it is none.
        RequestTooLarge: it has more numbers than all its images may have.
    """
    most = min(limits.images * math.prod(shape(spec)), NUMBERS)
    # Nothing can be listed without a comma: this bounds what the parser makes, at no cost.
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
        raise BadRequest("The JSON is no object.")
    return body


class _Whole(dict[str, int]):
    """Numbers by their text: a pixel is looked up, which costs what parsing it would."""

    def __missing__(self, text: str) -> int:
        if len(text) > DIGITS + 1:
            raise BadRequest(f"A number has more than {DIGITS} digits: {text[:DIGITS]}….")
        return int(text)


_WHOLE = _Whole({str(pixel): pixel for pixel in range(256)})


def _fraction(text: str) -> float:
    raise BadRequest(
        f"The JSON has the number {text[:20]}. Expected no fractions: pixels are whole numbers from"
        " 0 to 255."
    )


def shape(spec: PixelSpec) -> tuple[int, int, int]:
    """Height, width and channels."""
    return spec.height, spec.width, spec.channels


def pixels(numbers: Sequence[object], expected: tuple[int, ...]) -> NDArray[np.uint8]:
    """Numbers of this shape, listed in the order of memory or nested as the shape is.

    Raises:
        BadRequest: they are something else.
    """
    flat: Sequence[Any] = numbers
    if flat and isinstance(flat[0], list):
        _check_lengths([flat], expected[0])
        for size in expected[1:]:
            _check_lengths(flat, size)
            flat = list(chain.from_iterable(flat))
    if len(flat) != math.prod(expected):
        raise BadRequest(f"The data has {len(flat)} numbers. Expected {math.prod(expected)}.")
    try:
        return np.frombuffer(bytes(flat), np.uint8).reshape(expected)
    except (TypeError, ValueError):
        raise BadRequest("The data has no pixels. Expected whole numbers from 0 to 255.") from None


def _check_lengths(lists: Sequence[object], size: int) -> None:
    if not all(isinstance(each, list) and len(each) == size for each in lists):
        raise BadRequest("The data is not nested as its shape is.")
