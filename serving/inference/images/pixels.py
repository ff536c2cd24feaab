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

from serving.errors import ImageTooLarge, InvalidImage, ServingError
from serving.inference.images import digit, png

FITS = ("stretch", "digit")

# What cameras, browsers and editors produce. Each further decoder is one more parser of hostile
# bytes: TIFF, the largest of them, stays out, and AVIF is not in every build of Pillow.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

_STARTS = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"GIF8": "GIF",
}

# Pillow reads what surrounds the pixels in Python, piece by piece, at 1 to 3 us each, and 32 MB can
# hold millions. What cameras and editors write has some dozens before the pixels; behind these only
# PNG goes on in pieces, most often of 8 kB and more.
COUNTED = 64 * 1024  # bytes of a file whose pieces are counted
HEADER_PIECES = 1000
PIXEL_PIECES = 20_000  # and one for each ...
PIECE = 512  # ... bytes
# A scan of twelve bytes takes 85 us for each million pixels. An encoder writes some ten.
SCANS = 100
_SCAN = b"\xff\xda\x00"
# Pillow inflates a BMP's run lengths in Python, at 150 us for a file of a kilobyte with a row of a
# million pixels. No camera and no browser writes them.
_RUN_LENGTHS = (1, 2)

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

    Raises:
        InvalidImage: the bytes are not a readable image in one of ``FORMATS``.
        ImageTooLarge: it has more than ``max_pixels``, which is found before any is decoded; a PNG
            of the model's own size may.
            Pillow itself opens nothing above 178,956,970 pixels, whatever ``max_pixels`` says.
    """
    found = exact(data, spec)
    return pixels(opened(data, max_pixels=max_pixels), spec) if found is None else found


def exact(data: bytes, spec: PixelSpec) -> NDArray[np.uint8] | None:
    """What ``read`` returns, where that is no more than what is written in a PNG; else None."""
    found = png.exact(data, (spec.height, spec.width, spec.channels))
    if found is None or (spec.fit == "digit" and not digit.is_normal(found)):
        return None
    return found


class _Counted(BytesIO):
    """A file that is read in so many pieces and no more."""

    left = HEADER_PIECES

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise InvalidImage("The image file is cut into too many pieces.")
        return super().read(size)


def opened(data: bytes, *, max_pixels: int) -> Image.Image:
    """The image file with its header read: its ``width`` and ``height`` are known, and allowed.

    Raises:
        InvalidImage, ImageTooLarge: as ``read`` does.
    """
    _silence_pillow()
    if data.startswith(b"\xff\xd8") and data.count(_SCAN) > SCANS:
        raise InvalidImage(f"The JPEG has more than {SCANS} scans.")
    image = None
    try:
        file = _Counted(data) if len(data) > COUNTED else BytesIO(data)
        image = Image.open(file, formats=FORMATS)
    except ServingError:
        raise
    except Image.DecompressionBombError:
        pass  # Pillow's own limit
    except Exception as exc:
        raise _translated(exc, kind(data)) from exc
    if image is None or image.width * image.height > max_pixels:
        raise ImageTooLarge(f"The image has more pixels than the limit of {max_pixels}.")
    if image.info.get("compression") in _RUN_LENGTHS and image.format == "BMP":
        raise InvalidImage("The BMP is compressed by run lengths. Expected one that is not.")
    return image


def memory(image: Image.Image) -> int:
    """Bytes that the decoding of what was ``opened`` takes for a moment, at most."""
    return image.width * image.height * (16 if image.format == "WEBP" else 8)


def pixels(image: Image.Image, spec: PixelSpec) -> NDArray[np.uint8]:
    """Decode what was ``opened``, as uint8 ``(spec.height, spec.width, spec.channels)``.

    Raises:
        InvalidImage: it cannot be decoded.
        ImageTooLarge: there is not enough memory for it.
    """
    _silence_pillow()
    try:
        opaque = _opaque(_eight_bits(_loaded(image)), spec)
    except ServingError:
        raise
    except Exception as exc:
        raise _translated(exc, image.format) from exc
    if spec.fit == "digit":
        found = digit.normalise(opaque)
    else:
        found = np.asarray(opaque.resize((spec.width, spec.height), Image.Resampling.BILINEAR))
    return found.reshape(spec.height, spec.width, spec.channels)


def kind(data: bytes) -> str | None:
    """The one of ``FORMATS`` as which a file begins."""
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)


def _translated(exc: Exception, kind: str | None) -> ServingError:
    """What a decoder raised; that is whatever its parsing runs into."""
    if isinstance(exc, Image.DecompressionBombError | MemoryError):
        return ImageTooLarge("The image has more pixels than fit into memory.")
    if kind is not None:
        return InvalidImage(f"The image begins as a {kind} file and is cut short or damaged.")
    known = ", ".join(FORMATS)
    return InvalidImage(f"The bytes are not a readable image. Known formats: {known}.")


def _loaded(image: Image.Image) -> Image.Image:
    """The first frame, upright; no step after it needs the file, so it can be freed early."""
    file = getattr(image, "fp", None)
    if isinstance(file, _Counted):
        file.left = PIXEL_PIECES + len(file.getbuffer()) // PIECE
    image.load()
    upright = _upright(image)
    if upright is not image:
        image.close()  # its pixels too: whoever opened it still holds it
    return upright


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files: what matters of them is an exception, too.

    ``warnings.catch_warnings`` would swap the filters under all other threads. A filter that
    stays and names Pillow's modules only is safe; it is renewed if somebody put others before it.
    """
    if warnings.filters[:1] != [_QUIET]:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)


def _upright(image: Image.Image) -> Image.Image:
    """Turn as EXIF says, and not at all where EXIF is broken."""
    if not image.info:  # nothing but pixels
        return image
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
