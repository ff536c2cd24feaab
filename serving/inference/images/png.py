"""PNG files that have a model's size and colours already: crops, thumbnails, test images.

There is nothing to do with them but to inflate, which libspng does in a tenth of the time that
Pillow's parser, written in Python, takes for so few pixels. Every other file, a broken one too, is
Pillow's. Knows nothing of HTTP or of any particular model.
"""

import struct
import zlib
from functools import cache

import numpy as np
import pyspng
from numpy.typing import NDArray

LARGEST = 64 * 1024  # bytes of a file: behind them Pillow's parser is a small part of its work
_PIXELS = {b"IHDR", b"IDAT", b"IEND"}
_CHUNK = struct.Struct(">I4s")
_AROUND = 12  # bytes of a chunk that are not its data


def exact(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8] | None:
    """The pixels of ``data``, uint8 of ``shape``: (height, width, 1 or 3). None if ``data`` is not
    a sound PNG of just that shape, with 8 bits a channel and nothing beside its pixels."""
    if len(data) > LARGEST or not data.startswith(_header(shape)) or not _only_pixels(data):
        return None
    try:
        pixels: NDArray[np.uint8] = pyspng.load(data)
    except RuntimeError:
        return None
    return pixels.reshape(shape)


@cache
def _header(shape: tuple[int, int, int]) -> bytes:
    height, width, channels = shape
    fields = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + fields


def _only_pixels(data: bytes) -> bool:
    """No transparency, no orientation, nothing else that somebody would have to look at; and no
    byte that was not written so: libspng is told by its binding to ignore the check sums."""
    place = 8
    while place + _AROUND <= len(data):
        size, kind = _CHUNK.unpack_from(data, place)
        end = place + _AROUND + size
        told = data[end - 4 : end]
        if kind not in _PIXELS or zlib.crc32(data[place + 4 : end - 4]).to_bytes(4) != told:
            return False
        place = end
    return place == len(data)
