"""Read PNG files that already have a model's size and colours: crops, thumbnails, test images.

They only need inflating, which libspng does in a tenth of the time of Pillow, whose parser is
written in Python. Every other file, a damaged one too, is left to Pillow.
"""

import struct
import zlib
from functools import cache

import numpy as np
import pyspng
from numpy.typing import NDArray

LARGEST = 64 * 1024  # bytes of a file: in larger ones Pillow's parser is a small part of the work
_PIXELS = {b"IHDR", b"IDAT", b"IEND"}
_CHUNK = struct.Struct(">I4s")
_AROUND = 12  # bytes of a chunk beside its data


def read_plain(data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8] | None:
    """Return the pixels of ``data``, uint8 of ``shape``: (height, width, 1 or 3); None unless it is
    an intact PNG of that shape, with 8 bits a channel and nothing beside its pixels."""
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
    """Return True if the file has no chunk beside its pixels, such as a transparent colour or an
    orientation, and every checksum is right: pyspng makes libspng ignore them."""
    place = 8
    while place + _AROUND <= len(data):
        size, kind = _CHUNK.unpack_from(data, place)
        end = place + _AROUND + size
        checksum = data[end - 4 : end]
        if kind not in _PIXELS or zlib.crc32(data[place + 4 : end - 4]).to_bytes(4) != checksum:
            return False
        place = end
    return place == len(data)
