"""Find how a photograph must be turned, and read nothing else of its EXIF.

Pillow's parser builds every value that a directory promises: an orientation of four million numbers
takes 240 MB, a block of 32 MB ten seconds.
"""

import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image

LARGEST = 64 * 1024  # bytes of a block: a JPEG's segment can hold no more
PROFILE = "Raw profile type exif"  # where ImageMagick kept EXIF before PNG had a chunk for it
PROFILE_BYTES = 3 * LARGEST  # two digits for a byte, and line ends

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MARK = b"Exif\0\0"
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION, _SHORT, _ENTRY = 0x0112, 3, 12


def turn(info: Mapping[Any, Any]) -> Image.Transpose | None:
    """Return what turns an image upright, from the ``info`` that Pillow found beside its pixels;
    None if nothing does, or if EXIF is damaged or larger than ``LARGEST``."""
    return TURNS.get(orientation(_block(info)))


def orientation(block: bytes) -> int:
    """Return the orientation that an EXIF block holds as one SHORT in its first directory, or 1:
    nothing to turn."""
    block = block.removeprefix(_MARK).removeprefix(_MARK)
    order = _ORDERS.get(block[:4])
    if order is None or len(block) > LARGEST:
        return 1
    try:
        (place,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, place)
        entry = struct.Struct(f"{order}HHIH")
        for start in range(place + 2, place + 2 + _ENTRY * count, _ENTRY):
            tag, kind, length, value = entry.unpack_from(block, start)
            if tag == _ORIENTATION:
                return int(value) if (kind, length) == (_SHORT, 1) else 1
    except struct.error:  # the block ends before its directory
        pass
    return 1


def _block(info: Mapping[Any, Any]) -> bytes:
    if "exif" in info:
        return bytes(info["exif"])
    text = info.get(PROFILE, "")
    if len(text) > PROFILE_BYTES:
        return b""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""
