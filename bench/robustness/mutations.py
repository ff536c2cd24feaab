"""Damaged images of every accepted format, reproducible by seed.

Knows the pieces of PNG, JPEG and WebP, to damage them where a decoder looks; knows nothing of
servers.
"""

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from PIL import Image

from bench.clients.bodies import NAMES, files

SIDE = 64
LARGE = 1000  # side of an image whose scans are expensive
MOST = 4  # damages to one image
MANY = (100, 3_000, 60_000)  # pieces, where there are far too many
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Damage = Callable[[random.Random, bytes], bytes]
Piece = tuple[bytes, bytes]  # a name, and its content


class Container(NamedTuple):
    """A format: how to split a file into pieces, to join them, and an empty piece."""

    split: Callable[[bytes], list[Piece]]
    join: Callable[[Sequence[Piece]], bytes]
    empty: Piece


@cache
def sound() -> tuple[bytes, ...]:
    """Return sound images: each accepted format in its variants, and a picture of each model."""
    ramp = Image.linear_gradient("L").resize((SIDE, SIDE))
    colours = Image.merge("RGB", [ramp, ramp.rotate(90), ramp.rotate(180)])
    clear = colours.copy()
    clear.putalpha(ramp)
    frames = [colours.rotate(90 * turn) for turn in range(3)]
    animated: dict[str, object] = {"save_all": True, "append_images": frames}
    exif = Image.Exif()
    exif[0x0112] = 6
    variants: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("PNG", ramp, {}),
        ("PNG", colours, {"optimize": True}),
        ("PNG", clear, {}),
        ("PNG", colours.convert("P"), {"transparency": 0}),
        ("PNG", ramp.convert("1"), {}),
        ("PNG", ramp.convert("I").convert("I;16"), {}),
        ("PNG", colours, animated),
        ("JPEG", colours, {"quality": 85, "exif": exif}),
        ("JPEG", colours, {"progressive": True}),
        ("JPEG", colours.resize((LARGE, LARGE)), {"progressive": True}),
        ("JPEG", colours.convert("CMYK"), {}),
        ("JPEG", ramp, {"restart_marker_rows": 1}),
        ("WEBP", colours, {}),
        ("WEBP", clear, {"lossless": True}),
        ("WEBP", colours, animated),
        ("BMP", colours, {}),
        ("BMP", colours.convert("P"), {}),
        ("BMP", ramp.convert("1"), {}),
        ("GIF", colours.convert("P"), {}),
        ("GIF", frames[0], {**animated, "loop": 0}),
    ]
    saved = (_saved(image, form, more) for form, image, more in variants)
    return (*saved, run_lengths(LARGE), *(files(name)[0] for name in NAMES))


def run_lengths(side: int) -> bytes:
    """Return a BMP of one colour, compressed by run lengths, which Pillow does not write."""
    row = b"\xff\1" * (side // 255) + bytes([side % 255, 1]) + b"\0\0"
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + info + bytes(1024) + row * side


def _saved(image: Image.Image, form: str, options: dict[str, object]) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def mutated(seed: int, index: int) -> bytes:
    """Return the image number ``index`` of a seed: a sound one, damaged in one to four ways."""
    rng = random.Random(f"{seed} {index}")
    data = rng.choice(sound())
    for _ in range(rng.randint(1, MOST)):
        data = rng.choice(DAMAGES)(rng, data) or data
    while data in sound():  # overwritten by the same bytes
        data = flip(rng, data)
    return data


def flip(rng: random.Random, data: bytes) -> bytes:
    """Flip some bits, more often near the start, where the header is."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        changed[_place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def edit(rng: random.Random, data: bytes) -> bytes:
    """Overwrite, remove, repeat or truncate some bytes, or continue with another image."""
    start, length = _place(rng, data), rng.choice((1, 2, 4, 16, 256, 1024))
    part, rest, other = data[start : start + length], data[start + length :], rng.choice(sound())
    wide = rng.choice((2, 4))  # bytes of a number, where a length may be
    number = (rng.choice(NUMBERS) % 256**wide).to_bytes(wide, rng.choice(("big", "little")))
    edits = (
        bytes([rng.choice((0, 0xFF, rng.randrange(256)))]) * len(part) + rest,
        rng.randbytes(len(part)) + rest,
        number + data[start + wide :],
        rest,
        part * rng.choice((3, 4, 100)) + rest,
        b"",
        other[_place(rng, other) :],
    )
    return data[:start] + rng.choice(edits)


def pieces(rng: random.Random, data: bytes) -> bytes:
    """Remove, double, move, change or rename a chunk or segment."""
    container = _container(data)
    if not container or len(found := container.split(data)) < 2:
        return edit(rng, data)
    place = rng.randrange(len(found))
    name, held = found[place]
    what = rng.randrange(5)
    if what == 0:
        del found[place]
    elif what == 1:
        found.insert(rng.randrange(len(found)), (name, held))
    elif what == 2:
        found.insert(rng.randrange(len(found)), found.pop(place))
    elif what == 3:
        found[place] = (name, edit(rng, held) if held else b"\0")
    else:
        found[place] = (rng.choice(found)[0], held)
    return container.join(found)


def swell(rng: random.Random, data: bytes) -> bytes:
    """Insert many empty pieces, which a decoder skips one by one."""
    container = _container(data)
    if container and (found := container.split(data)):
        place = rng.randint(1, len(found))
        found[place:place] = [container.empty] * rng.choice(MANY)
        return container.join(found)
    return edit(rng, data)


def scans(rng: random.Random, data: bytes) -> bytes:
    """Repeat the last scan of a JPEG many times; each scan visits all pixels."""
    last = data.rfind(b"\xff\xda\x00")
    if last < 0:
        return swell(rng, data)
    head = data[last : last + 2 + int.from_bytes(data[last + 2 : last + 4], "big")]
    scan = rng.choice((head + bytes(2), data[last : last + 3]))  # or its beginning alone
    return data[:-2] + scan * rng.choice(MANY) + data[-2:]


def _container(data: bytes) -> Container | None:
    return next((each for start, each in FORMATS.items() if data.startswith(start)), None)


def png_pieces(data: bytes) -> list[Piece]:
    """Split a PNG into chunks."""
    found, at = [], 8
    while at + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        found.append((name, data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def png(found: Sequence[Piece]) -> bytes:
    """Join chunks to a PNG, with correct check sums, so that the decoder continues."""
    chunks = [
        struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held))
        for name, held in found
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg_pieces(data: bytes) -> list[Piece]:
    """Split a JPEG into segments; the last holds the scan and all after it."""
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at : at + 2], data[at + 4 : at + 2 + size]))
        at += 2 + max(size, 2)
    return [*found, (b"", data[at:])]


def jpeg(found: Sequence[Piece]) -> bytes:
    """Join segments to a JPEG."""
    segments = [
        name + struct.pack(">H", min(len(held) + 2, 0xFFFF)) + held if name else held
        for name, held in found
    ]
    return b"\xff\xd8" + b"".join(segments)


def webp_pieces(data: bytes) -> list[Piece]:
    """Split a WebP into chunks."""
    found, at = [], 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        found.append((name, data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return found


def webp(found: Sequence[Piece]) -> bytes:
    """Join chunks to a WebP."""
    inside = b"WEBP" + b"".join(
        name + struct.pack("<I", len(held)) + held + b"\0" * (len(held) % 2) for name, held in found
    )
    return b"RIFF" + struct.pack("<I", len(inside)) + inside


def _place(rng: random.Random, data: bytes) -> int:
    """Return a random position, half of the time near the start."""
    if not data:
        return 0
    return rng.randrange(min(len(data), 64) if rng.random() < 0.5 else len(data))


DAMAGES: tuple[Damage, ...] = (flip, edit, edit, edit, edit, pieces, swell, scans)
FORMATS = {
    b"\x89PNG": Container(png_pieces, png, (b"teSt", b"")),
    b"\xff\xd8": Container(jpeg_pieces, jpeg, (b"\xff\xfe", b"")),
    b"RIFF": Container(webp_pieces, webp, (b"teSt", b"")),
}
