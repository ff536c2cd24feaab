"""The files of each format that need the most memory for their pixels."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from math import ceil
from typing import Any

from PIL import Image

SIDE = 2000
UPSIDE = Image.Exif()
UPSIDE[0x0112] = 6


def encoded(mode: str, kind: str, **options: Any) -> bytes:
    """Encode a turned image; one with an alpha channel is half transparent."""
    file = BytesIO()
    image = Image.new(mode, (SIDE, SIDE), {"RGBA": (9, 9, 9, 128), "LA": (9, 128)}.get(mode, 1))
    if kind not in ("BMP", "GIF"):
        options["exif"] = UPSIDE.tobytes()
    image.save(file, kind, **options)
    return file.getvalue()


def png(
    depth: int, colour: int, samples: int, *chunks: tuple[bytes, bytes], adam7: int = 0
) -> bytes:
    """Write what Pillow does not: a PNG of any depth, interlaced, with any chunks."""
    passes = [(8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2)] if adam7 else [(1, 1)]
    bits = depth * samples
    rows = sum(
        ceil(SIDE / down) * (1 + ceil(ceil(SIDE / across) * bits / 8)) for across, down in passes
    )
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, adam7)
    parts = [(b"IHDR", header), (b"eXIf", UPSIDE.tobytes()[6:]), *chunks]
    parts += [(b"IDAT", zlib.compress(bytes(rows + SIDE), 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


JPEG: dict[str, Any] = {"progressive": True, "subsampling": 0}
CLEAR = b"tRNS", bytes(2)
FILES: dict[str, Callable[[], bytes]] = {
    "JPEG, grey, progressive": lambda: encoded("L", "JPEG", progressive=True),
    "JPEG, colour": lambda: encoded("RGB", "JPEG", subsampling=0),
    "JPEG, colour, progressive": lambda: encoded("RGB", "JPEG", **JPEG),
    "JPEG, CMYK, progressive": lambda: encoded("CMYK", "JPEG", **JPEG),
    "PNG, 1 bit": lambda: encoded("1", "PNG"),
    "PNG, grey": lambda: encoded("L", "PNG"),
    "PNG, grey, a transparent shade": lambda: encoded("L", "PNG", transparency=1),
    "PNG, grey and alpha": lambda: encoded("LA", "PNG"),
    "PNG, palette": lambda: encoded("P", "PNG"),
    "PNG, transparent palette": lambda: encoded("P", "PNG", transparency=bytes(9)),
    "PNG, colour": lambda: encoded("RGB", "PNG"),
    "PNG, colour, a transparent one": lambda: encoded("RGB", "PNG", transparency=(1, 0, 0)),
    "PNG, colour and alpha": lambda: encoded("RGBA", "PNG"),
    "PNG, 16-bit grey": lambda: png(16, 0, 1),
    "PNG, 16-bit grey, a transparent shade": lambda: png(16, 0, 1, CLEAR),
    "PNG, 16-bit grey and alpha": lambda: png(16, 4, 2),
    "PNG, 16-bit colour and alpha": lambda: png(16, 6, 4),
    "PNG, 16-bit colour and alpha, interlaced": lambda: png(16, 6, 4, adam7=1),
    "GIF": lambda: encoded("P", "GIF"),
    "GIF, transparent": lambda: encoded("P", "GIF", transparency=1, disposal=2),
    "BMP, palette": lambda: encoded("P", "BMP"),
    "BMP, colour": lambda: encoded("RGB", "BMP"),
    "BMP, colour and alpha": lambda: encoded("RGBA", "BMP"),
    "WEBP": lambda: encoded("RGB", "WEBP"),
    "WEBP, alpha": lambda: encoded("RGBA", "WEBP"),
    "WEBP, lossless": lambda: encoded("RGB", "WEBP", lossless=True),
    "WEBP, lossless, alpha": lambda: encoded("RGBA", "WEBP", lossless=True),
    "WEBP, animated": lambda: encoded(
        "RGBA", "WEBP", save_all=True, append_images=[Image.new("RGBA", (SIDE, SIDE), "red")]
    ),
}
