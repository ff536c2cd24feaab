"""The pixel policy of ``models/README.md`` for training images: decode, rotate, flatten, stretch;
simulated photographs of digits, and printed letters.

Knows Pillow and NumPy; knows nothing of data sets. Has no limits: training reads its own files.
"""

import random
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps

from training.errors import UnreadableImage

# Everything that Pillow's decoders raise for damaged bytes.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROFILE = "Raw profile type exif"  # where ImageMagick kept EXIF before PNG had a chunk for it
_MOST_EXIF = 64 * 1024  # bytes of a block


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB, upright, transparency on white.

    Raises:
        UnreadableImage: if the bytes are not an image, or are cut off.
    """
    try:
        with Image.open(BytesIO(data)) as opened:
            opened.load()
            return _flatten(_eight_bits(_upright(opened)))
    except _DAMAGED as exc:
        raise UnreadableImage(f"not a readable image: {exc}") from exc


def resize(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch an RGB image to uint8 ``(*size, 3)``; an image of that size stays as it is."""
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8 ``(H, W, 1)`` or ``(H, W, 3)`` as a PNG file, without loss."""
    out = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def photograph(digit: bytes, rng: random.Random) -> bytes:
    """Encode the file of a digit as people send it: dark on light, at a random place of 200×150,
    scaled 1-6 times, as JPEG of quality 85."""
    ink = ImageOps.invert(Image.open(BytesIO(digit)))
    page = Image.new("L", (200, 150), 255)
    page.paste(ink, (rng.randint(0, 200 - ink.width), rng.randint(0, 150 - ink.height)))
    scale = rng.uniform(1, 6)
    size = round(page.width * scale), round(page.height * scale)
    out = BytesIO()
    page.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
    return out.getvalue()


def media_type(data: bytes) -> str:
    """Return the media type of the bytes; some published ``.jpg`` files are not JPEG."""
    with Image.open(BytesIO(data)) as image:
        return image.get_format_mimetype() or "application/octet-stream"


def quiet_exif() -> "warnings.catch_warnings[None]":
    """Suppress Pillow's warnings about damaged EXIF blocks: the pixels of those files are whole."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _upright(image: Image.Image) -> Image.Image:
    """Rotate by the EXIF orientation, and not at all if EXIF is damaged."""
    turn = _TURNS.get(_orientation(image.info))
    return image if turn is None else image.transpose(turn)


def _orientation(info: Mapping[Any, Any]) -> int:
    """Return the one SHORT that the first EXIF directory holds as orientation, or 1:
    nothing to turn. Pillow also takes other types, larger blocks and XMP; serving does not."""
    block = info.get("exif", b"")
    try:
        if "exif" not in info and len(text := info.get(_PROFILE, "")) <= 3 * _MOST_EXIF:
            block = bytes.fromhex("".join(text.split("\n")[3:]))
        block = block.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
        if order is None or len(block) > _MOST_EXIF:
            return 1
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(count):
            found = struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * entry)
            if found[0] == ExifTags.Base.Orientation:
                return int(found[3]) if found[1:3] == (3, 1) else 1
    except (struct.error, ValueError):
        pass
    return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which ``convert`` would clip."""
    if not image.mode.startswith("I;16"):
        return image
    deep = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((deep + 128) // 257).astype(np.uint8))


def _flatten(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    front = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", front.size, "white"), front).convert("RGB")


def enlarge(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Interpolate a small uint8 ``(h, w, C)``, of one or three channels, to ``(*size, C)``."""
    grey = image.shape[2] == 1
    opened = Image.fromarray(image[..., 0] if grey else image)
    large = np.asarray(opened.resize(size[::-1], Image.Resampling.BICUBIC))
    return large[..., None] if grey else large


def fonts(names: Sequence[str]) -> list[ImageFont.FreeTypeFont]:
    """Load TrueType fonts that matplotlib ships, by name and without suffix, in 48 points."""
    import matplotlib as mpl  # half a second, and only outliers need it

    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    return [ImageFont.truetype(folder / f"{name}.ttf", 48) for name in names]


def letter(character: str, font: ImageFont.FreeTypeFont) -> NDArray[np.uint8]:
    """Draw a character as MNIST draws its digits, uint8 ``(28, 28)``: white on black, the longer
    side 20 pixels, the centre of mass in the middle."""
    page = Image.new("L", (96, 96))
    ImageDraw.Draw(page).text((24, 12), character, fill=255, font=font)
    ink = page.crop(page.getbbox())
    ink.thumbnail((20, 20), Image.Resampling.LANCZOS)
    small = np.asarray(ink).astype(float)
    framed = np.zeros((28, 28), np.uint8)
    top, left = (
        min(max(round(14 - float(np.average(np.arange(n), weights=mass))), 0), 28 - n)
        for n, mass in zip(small.shape, (small.sum(axis=1), small.sum(axis=0)), strict=True)
    )
    framed[top : top + small.shape[0], left : left + small.shape[1]] = small
    return framed
