"""Turn the bytes of an upload into the pixels that a model expects.

The steps are those of ``models/README.md``, "The pixel policy". Knows nothing of HTTP or of any
particular model.
"""

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.errors import ImageTooLarge, InvalidImage, OutOfMemory, ServingError
from serving.inference.images import digit, exif, png, readers

FITS = ("stretch", "digit")
FORMATS = tuple(readers.STARTS.values())

# A row of eight bytes for each pixel is held twice beside the image, and a PNG can be one row.
LONGEST = 65_535  # pixels of a side: all that the other formats can express
# A scan of twelve bytes takes 85 us for each million pixels. An encoder writes about ten.
SCANS = 100
_SCAN = b"\xff\xda\x00"
# Pillow decodes the run lengths of a BMP in Python: 150 us for a kilobyte whose row has a million
# pixels. No camera and no browser writes them.
_RUN_LENGTHS = (1, 2)

_TILE = 2**18  # pixels composited at once: the intermediate images take 16 bytes each

# Bytes for a pixel, 8 if not here: two images of four bytes, while one is turned or composited.
# Before, libjpeg may hold all coefficients beside the image, and libwebp two canvases and a copy.
_MEMORY = {"JPEG RGB": 10, "JPEG CMYK": 12, "WEBP RGB": 16, "WEBP RGBA": 16}

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
            of the model's own size is exempt.
        OutOfMemory: if there is not enough memory at the moment.
    """
    found = read_plain(data, spec)
    return decode(open_image(data, max_pixels=max_pixels), spec) if found is None else found


def read_plain(data: bytes, spec: PixelSpec) -> NDArray[np.uint8] | None:
    """Return what ``read`` returns if ``data`` is a PNG that only needs inflating; else None."""
    found = png.read_plain(data, (spec.height, spec.width, spec.channels))
    if found is None or (spec.fit == "digit" and not digit.is_normal(found)):
        return None
    return found


def open_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """Read the header of an image file and check its size. Raises what ``read`` raises."""
    _silence_pillow()
    name, promised = file_format(data), 0
    if name == "JPEG" and data.count(_SCAN) > SCANS:
        raise InvalidImage(f"The JPEG has more than {SCANS} scans.")
    if name == "WEBP":
        size = readers.webp_size(data)
        _check_size(size, max_pixels)
        promised = 8 * math.prod(size)
    try:
        image = readers.open_header(data, name)
    except ServingError:
        raise
    except Image.DecompressionBombError as exc:
        raise _too_large(max_pixels) from exc
    except Exception as exc:
        raise _translated(exc, name, promised) from exc
    if image.info.get("compression") in _RUN_LENGTHS and name == "BMP":
        raise InvalidImage("The BMP is compressed by run lengths. Expected an uncompressed BMP.")
    _check_size(image.size, max_pixels)
    return image


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if math.prod(size) > max_pixels:
        raise _too_large(max_pixels)
    if max(size) > LONGEST:
        raise ImageTooLarge(f"A side of the image has more pixels than the limit of {LONGEST}.")


def _too_large(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(f"The image has more pixels than the limit of {max_pixels}.")


def decode_memory(image: Image.Image) -> int:
    """Return the most bytes that ``decode`` holds at any moment, beside copies of the file and some
    megabytes of tiles."""
    return image.width * image.height * _MEMORY.get(f"{image.format} {image.mode}", 8)


def decode(image: Image.Image, spec: PixelSpec) -> NDArray[np.uint8]:
    """Return the pixels of an opened image, shaped as ``read`` returns them. Raise InvalidImage if
    the file is damaged, OutOfMemory if there is not enough memory."""
    _silence_pillow()
    needed = decode_memory(image)
    try:
        opaque = _opaque(_eight_bits(_upright(image)), spec)
    except ServingError:
        raise
    except Exception as exc:
        image.close()
        raise _translated(exc, image.format, needed) from exc
    try:
        if spec.fit == "digit":
            found = digit.normalise(opaque)
        else:
            found = np.asarray(opaque.resize((spec.width, spec.height), Image.Resampling.BILINEAR))
    except MemoryError as exc:
        raise _out_of_memory() from exc
    return found.reshape(spec.height, spec.width, spec.channels)


def file_format(data: bytes) -> str | None:
    """Return the one of ``FORMATS`` that a file starts like, or None."""
    return next((name for start, name in readers.STARTS.items() if data.startswith(start)), None)


def _translated(exc: Exception, name: str | None, needed: int) -> ServingError:
    """Return our error for an exception of Pillow's decoders, which may be of any kind. libjpeg and
    libwebp report that memory is short as they report a damaged file."""
    if isinstance(exc, MemoryError) or not _available(needed):
        return _out_of_memory()
    if name is not None:
        return InvalidImage(f"The image starts like a {name} file but is truncated or damaged.")
    known = ", ".join(FORMATS)
    return InvalidImage(f"The bytes are not a readable image. Known formats: {known}.")


def _available(size: int) -> bool:
    """Return True if so many bytes can be allocated; none of them is touched."""
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        return False
    return True


def _out_of_memory() -> OutOfMemory:
    return OutOfMemory("There is not enough memory for the image at the moment. Try again later.")


def _upright(image: Image.Image) -> Image.Image:
    """Load the first frame and turn it as EXIF says."""
    file = getattr(image, "fp", None)
    if isinstance(file, readers.Counted):
        file.read_pixels()
    image.load()
    turn = exif.turn(image.info)
    if turn is None:
        return image
    turned = image.transpose(turn)
    image.close()
    return turned


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
    clear = image.info.get("transparency")
    grey = Image.new("L" if clear is None else "LA", image.size)
    for box in _tiles(image):
        deep = np.asarray(image.crop(box))
        scaled = np.minimum(deep, 65535 - 128)  # more would overflow, and become 255 anyway
        scaled += 128
        scaled //= 257
        tile = Image.fromarray(scaled.astype(np.uint8))
        if clear is not None:
            tile.putalpha(Image.fromarray((deep != clear).astype(np.uint8) * 255))
        grey.paste(tile, box)
    image.close()
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
    for box in _tiles(image):
        tile = image.crop(box).convert("RGBA")
        ground = Image.new("RGBA", tile.size, paper)
        opaque.paste(Image.alpha_composite(ground, tile).convert(mode), box)
    return opaque


def _tiles(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    columns = min(image.width, _TILE)
    rows = _TILE // columns
    for top in range(0, image.height, rows):
        for left in range(0, image.width, columns):
            yield left, top, min(left + columns, image.width), min(top + rows, image.height)
