"""The pixel policy of ``models/README.md`` for training images: decode, rotate, flatten, stretch;
and the simulated photographs of digits.

Knows Pillow and NumPy; knows nothing of data sets. Has no limits: training reads its own files.
"""

import random
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

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
    try:
        return ImageOps.exif_transpose(image)
    except (*_DAMAGED, LookupError, TypeError, OverflowError):
        return image


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
