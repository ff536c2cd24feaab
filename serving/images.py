"""Turn the bytes of an upload into the pixels that a model expects.

The steps are those of ``models/README.md``, "The pixel policy". Knows Pillow and NumPy; knows
nothing of HTTP or of any particular model.
"""

import re
import struct
import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from serving import digit
from serving.errors import ImageTooLarge, InvalidImage

FITS = ("stretch", "digit")

# What cameras, browsers and editors produce. Each further decoder is one more parser of hostile
# bytes: TIFF, the largest of them, stays out, and AVIF is not in every build of Pillow.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# Pixels composited at once: the steps between take 16 bytes each, and a photo may have 50 million.
_TILE = 2**18

_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_BROKEN_EXIF = (
    SyntaxError,
    LookupError,
    TypeError,
    ValueError,
    OSError,
    OverflowError,
    struct.error,
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


@dataclass(frozen=True)
class PixelSpec:
    """What a model's graph and metadata say about its input."""

    height: int
    width: int
    channels: int
    fit: str

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"No fit named {self.fit!r}. Known fits: {', '.join(FITS)}.")
        if self.channels not in (1, 3):
            raise ValueError(f"An image has 1 or 3 channels, not {self.channels}.")
        if self.fit == "digit" and (self.height, self.width, self.channels) != (28, 28, 1):
            shape = f"{self.height}x{self.width}x{self.channels}"
            raise ValueError(f"The fit 'digit' makes 28x28x1 pixels, not {shape}.")


def read(data: bytes, spec: PixelSpec, *, max_pixels: int) -> NDArray[np.uint8]:
    """Return ``data``, an image file, as uint8 ``(spec.height, spec.width, spec.channels)``.

    Raises ``InvalidImage`` for bytes that are not a readable image in one of ``FORMATS`` and
    ``ImageTooLarge`` for more than ``max_pixels``, before any of them is decoded. Pillow itself
    opens nothing above 178,956,970 pixels, whatever ``max_pixels`` says.
    """
    image = _decoded(data, spec, max_pixels)
    if spec.fit == "digit":
        pixels = digit.normalise(image)
    else:
        pixels = np.asarray(image.resize((spec.width, spec.height), Image.Resampling.BILINEAR))
    return pixels.reshape(spec.height, spec.width, spec.channels)


def _decoded(data: bytes, spec: PixelSpec, max_pixels: int) -> Image.Image:
    _silence_pillow()
    try:
        return _opaque(_eight_bits(_loaded(data, max_pixels)), spec)
    except ImageTooLarge:
        raise
    except (Image.DecompressionBombError, MemoryError) as exc:
        raise _too_large(max_pixels) from exc
    except Exception as exc:  # the decoders raise whatever their parsing runs into
        known = ", ".join(FORMATS)
        raise InvalidImage(f"The bytes are not a readable image. Known formats: {known}.") from exc


def _loaded(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame, upright; no step after it needs the file, so it can be freed early."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        _check_size(image, max_pixels)
        image.load()
        return _upright(image)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels)


def _too_large(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(f"The image has more pixels than the limit of {max_pixels}.")


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files: what matters of them is an exception, too.

    ``warnings.catch_warnings`` would swap the filters under all other threads. A filter that
    stays and names Pillow's modules only is safe; it is renewed if somebody put others before it.
    """
    if warnings.filters[:1] != [_QUIET]:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)


def _upright(image: Image.Image) -> Image.Image:
    """Turn as EXIF says, and not at all where EXIF is broken."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _BROKEN_EXIF:
        return image
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which ``convert`` would clip; other 16-bit kinds are scaled by Pillow."""
    if not image.mode.startswith("I;16"):
        return image
    deep = np.asarray(image)
    scaled = np.minimum(deep, 65535 - 128)  # above, it is 255 in any case, and would overflow
    scaled += 128
    scaled //= 257
    grey = Image.fromarray(scaled.astype(np.uint8))
    if "transparency" in image.info:
        opaque = (deep != image.info["transparency"]).astype(np.uint8) * 255
        grey.putalpha(Image.fromarray(opaque))
    return grey


def _opaque(image: Image.Image, spec: PixelSpec) -> Image.Image:
    """Composite on white and convert to the colours of ``spec``.

    White ink on nothing would vanish: a picture for ``digit`` that comes out blank gets black.
    """
    mode = "L" if spec.channels == 1 else "RGB"
    if not image.has_transparency_data:
        return image if image.mode == mode else image.convert(mode)
    opaque = _on("white", image, mode)
    if spec.fit == "digit" and np.ptp(np.asarray(opaque)) < digit.BLANK:
        return _on("black", image, mode)
    return opaque


def _on(paper: str, image: Image.Image, mode: str) -> Image.Image:
    """Composite tile by tile: at once, it would take five times the memory of the image."""
    opaque = Image.new(mode, image.size)
    columns = min(image.width, _TILE)
    rows = _TILE // columns
    for top in range(0, image.height, rows):
        for left in range(0, image.width, columns):
            box = left, top, min(left + columns, image.width), min(top + rows, image.height)
            tile = image.crop(box).convert("RGBA")
            ground = Image.new("RGBA", tile.size, paper)
            opaque.paste(Image.alpha_composite(ground, tile).convert(mode), (left, top))
    return opaque
