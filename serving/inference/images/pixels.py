"""Turn the bytes of an upload into the pixels that a model expects.

The steps are those of ``models/README.md``, "The pixel policy". Knows nothing of HTTP or of any
particular model.
"""

import re
import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from serving.errors import ImageTooLarge, InvalidImage, ServingError
from serving.inference.images import digit, png

FITS = ("stretch", "digit")

# What cameras, browsers and editors produce, by how a file starts. Each further decoder is one more
# parser of hostile bytes: TIFF, the largest of them, stays out, and AVIF is not in every build of
# Pillow.
_STARTS = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"BM": "BMP", b"GIF8": "GIF"}
FORMATS = tuple(_STARTS.values())

# Pillow reads all but the pixels in Python, piece by piece, at 1 to 3 us each, and 32 MB can hold
# millions. Cameras and editors write some dozens before the pixels; after the header only PNG
# continues in pieces, usually of 8 kB or more.
COUNTED = 64 * 1024  # bytes of the smallest file whose pieces are counted
HEADER_PIECES = 1000
PIXEL_PIECES = 20_000  # plus one for each ...
PIECE = 512  # ... bytes of the file
# A scan of twelve bytes takes 85 us for each million pixels. An encoder writes about ten.
SCANS = 100
_SCAN = b"\xff\xda\x00"
# Pillow decodes the run lengths of a BMP in Python: 150 us for a kilobyte whose row has a million
# pixels. No camera and no browser writes them.
_RUN_LENGTHS = (1, 2)

_TILE = 2**18  # pixels composited at once: the intermediate images take 16 bytes each

_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@dataclass(frozen=True)
class PixelSpec:
    """The input of a model, as its graph and its metadata describe it."""

    height: int
    width: int
    channels: int
    fit: str

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"No fit named {self.fit!r}. Known fits: {', '.join(FITS)}.")
        if self.channels not in (1, 3):
            raise ValueError(f"The input has {self.channels} channels. Expected 1 or 3.")
        if self.fit == "digit" and (self.height, self.width, self.channels) != (28, 28, 1):
            shape = f"{self.height}x{self.width}x{self.channels}"
            raise ValueError(f"The input is {shape}. The fit 'digit' makes 28x28x1.")


def read(data: bytes, spec: PixelSpec, *, max_pixels: int) -> NDArray[np.uint8]:
    """Return the image file ``data`` as uint8 ``(spec.height, spec.width, spec.channels)``.

    Raises:
        InvalidImage: if the bytes are not a readable image in one of ``FORMATS``.
        ImageTooLarge: if the image has more than ``max_pixels``; found before any is decoded. A PNG
            of the model's own size is exempt. Pillow itself opens nothing above 178,956,970 pixels.
    """
    found = read_plain(data, spec)
    return decode(open_image(data, max_pixels=max_pixels), spec) if found is None else found


def read_plain(data: bytes, spec: PixelSpec) -> NDArray[np.uint8] | None:
    """Return what ``read`` returns if ``data`` is a PNG that only needs inflating; else None."""
    found = png.read_plain(data, (spec.height, spec.width, spec.channels))
    if found is None or (spec.fit == "digit" and not digit.is_normal(found)):
        return None
    return found


class _Counted(BytesIO):
    """A file with a limited number of reads."""

    left = HEADER_PIECES

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise InvalidImage("The image file is cut into too many pieces.")
        return super().read(size)


def open_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """Read the header of an image file and check its size. Raises what ``read`` raises."""
    _silence_pillow()
    if data.startswith(b"\xff\xd8") and data.count(_SCAN) > SCANS:
        raise InvalidImage(f"The JPEG has more than {SCANS} scans.")
    try:
        file = _Counted(data) if len(data) > COUNTED else BytesIO(data)
        image = Image.open(file, formats=FORMATS)
    except ServingError:
        raise
    except Image.DecompressionBombError as exc:
        raise _too_large(max_pixels) from exc
    except Exception as exc:
        raise _translated(exc, file_format(data)) from exc
    if image.width * image.height > max_pixels:
        raise _too_large(max_pixels)
    if image.info.get("compression") in _RUN_LENGTHS and image.format == "BMP":
        raise InvalidImage("The BMP is compressed by run lengths. Expected an uncompressed BMP.")
    return image


def decode_memory(image: Image.Image) -> int:
    """Return the most bytes that ``decode`` holds at any moment."""
    return image.width * image.height * (16 if image.format == "WEBP" else 8)


def decode(image: Image.Image, spec: PixelSpec) -> NDArray[np.uint8]:
    """Return the pixels of an opened image, shaped as ``read`` returns them. Raise InvalidImage if
    the file is damaged, ImageTooLarge if there is not enough memory."""
    _silence_pillow()
    try:
        _load_upright(image)
        opaque = _opaque(_eight_bits(image), spec)
    except ServingError:
        raise
    except Exception as exc:
        raise _translated(exc, image.format) from exc
    if spec.fit == "digit":
        found = digit.normalise(opaque)
    else:
        found = np.asarray(opaque.resize((spec.width, spec.height), Image.Resampling.BILINEAR))
    return found.reshape(spec.height, spec.width, spec.channels)


def file_format(data: bytes) -> str | None:
    """Return the one of ``FORMATS`` that a file starts like, or None."""
    return next((name for start, name in _STARTS.items() if data.startswith(start)), None)


def _translated(exc: Exception, name: str | None) -> ServingError:
    """Return our error for an exception of Pillow's decoders, which may be of any kind."""
    if isinstance(exc, MemoryError):
        return ImageTooLarge("The image has more pixels than fit into memory.")
    if name is not None:
        return InvalidImage(f"The image starts like a {name} file but is truncated or damaged.")
    known = ", ".join(FORMATS)
    return InvalidImage(f"The bytes are not a readable image. Known formats: {known}.")


def _too_large(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(f"The image has more pixels than the limit of {max_pixels}.")


def _load_upright(image: Image.Image) -> None:
    """Load the first frame and turn it as EXIF says; ignore EXIF that is broken."""
    file = getattr(image, "fp", None)
    if isinstance(file, _Counted):
        file.left = PIXEL_PIECES + len(file.getbuffer()) // PIECE
    image.load()
    if not image.info:  # a file of pixels only
        return
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001, S110 - whatever a parser of EXIF runs into
        pass


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files: everything that matters is an exception, too.

    ``warnings.catch_warnings`` would swap the filters under all other threads. A permanent filter
    that names Pillow's modules only is safe; it moves to the front again if others precede it.
    """
    if warnings.filters[:1] != [_QUIET]:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which ``convert`` would clip; Pillow scales the other 16-bit modes."""
    if not image.mode.startswith("I;16"):
        return image
    deep = np.asarray(image)
    scaled = np.minimum(deep, 65535 - 128)  # more would overflow, and become 255 anyway
    scaled += 128
    scaled //= 257
    grey = Image.fromarray(scaled.astype(np.uint8))
    if "transparency" in image.info:
        opaque = (deep != image.info["transparency"]).astype(np.uint8) * 255
        grey.putalpha(Image.fromarray(opaque))
    return grey


def _opaque(image: Image.Image, spec: PixelSpec) -> Image.Image:
    """Composite on white and convert to the colours of ``spec``. White ink on a transparent ground
    would vanish: if a ``digit`` is blank on white, use black."""
    mode = "L" if spec.channels == 1 else "RGB"
    if not image.has_transparency_data:
        return image if image.mode == mode else image.convert(mode)
    opaque = _on("white", image, mode)
    if spec.fit == "digit" and np.ptp(np.asarray(opaque)) < digit.BLANK:
        return _on("black", image, mode)
    return opaque


def _on(paper: str, image: Image.Image, mode: str) -> Image.Image:
    """Composite tile by tile; all at once takes five times the memory of the image."""
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
