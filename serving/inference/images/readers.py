"""Open an image file with Pillow, reading no more of it than its pixels and its orientation need.

Pillow's own readers parse all that a file holds and promises, before anyone can look at its size: a
JPEG of 18 MB became 440 MB of Python objects, a PNG of 60 kB 250 MB of text, and a GIF of 40 bytes
an area of 140 MB to clear for a second frame. Knows files; knows nothing of models.
"""

import re
import struct
from io import BytesIO

from PIL import BmpImagePlugin, GifImagePlugin, ImageFile, PngImagePlugin, WebPImagePlugin

from serving.errors import InvalidImage
from serving.inference.images import exif

# What cameras, browsers and editors produce, by how a file starts. Each further decoder is one more
# parser of hostile bytes: TIFF, the largest of them, stays out, and AVIF is not in every build of
# Pillow.
STARTS = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"BM": "BMP", b"GIF8": "GIF"}

# A reader in Python takes 1 to 3 us for each piece, and 32 MB can hold millions. Cameras and
# editors write some dozens before the pixels; after the header only PNG continues in pieces,
# usually of 8 kB or more.
COUNTED = 64 * 1024  # bytes of the smallest file whose pieces are counted
HEADER_PIECES = 1000
PIXEL_PIECES = 20_000  # plus one for each ...
PIECE = 512  # ... bytes of the file


class Counted(BytesIO):
    """A file with a limited number of reads."""

    left = HEADER_PIECES

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most ``size`` bytes, or raise InvalidImage: there were too many reads."""
        self.left -= 1
        if self.left < 0:
            raise _too_many_pieces()
        return super().read(size)

    def read_pixels(self) -> None:
        """Renew the number of reads after the header."""
        self.left = _most_pieces(self.getbuffer().nbytes)


def open_header(data: bytes, name: str | None) -> ImageFile.ImageFile:
    """Open a file that starts like the format ``name``. Raise InvalidImage if it is cut into too
    many pieces, and anything else if it is damaged."""
    if name is None:
        raise SyntaxError("no known format")
    if name == "PNG":
        data = _needed_chunks(data)
    return _READERS[name](Counted(data) if len(data) > COUNTED else BytesIO(data))


def webp_size(data: bytes) -> tuple[int, int]:
    """Return the width and the height of a WebP, whose decoder allocates eight bytes for each pixel
    as soon as it is created."""
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        both = int.from_bytes(data[21:25], "little")
        return (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data.ljust(30, b"\0"), 26)
    return width & 0x3FFF, height & 0x3FFF


_LAYERS = {1: "L", 3: "RGB", 4: "CMYK"}
_MARKER = re.compile(rb"\xff([^\x00\xff])")  # libjpeg, too, skips what stands between segments
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BARE = {0x01, *range(0xD0, 0xDA)}  # markers without a segment
_SCAN, _EXIF = 0xDA, 0xE1


class _Jpeg(ImageFile.ImageFile):
    """Size, mode and EXIF of a JPEG; libjpeg, which decodes it, reads the header again.

    Pillow's own reader keeps every segment, a tuple for three bytes of a frame header, and the
    index of a multi-picture file, and parses EXIF to find dots per inch.
    """

    format, format_description = "JPEG", "JPEG (ISO 10918)"

    def _open(self) -> None:
        assert self.fp is not None  # noqa: S101 - Pillow's type is wider
        data, place = self.fp.read(), 2
        for _ in range(PIXEL_PIECES):
            found = _MARKER.search(data, place)
            if found is None:
                raise SyntaxError("no scan")
            marker, place = found[1][0], found.end()
            if marker in _BARE:
                continue
            start, place = place + 2, place + int.from_bytes(data[place : place + 2])
            if marker == _SCAN:
                return
            if marker in _FRAMES and not self.tile:
                self._set_frame(*struct.unpack_from(">BHHB", data, start))
            elif marker == _EXIF and data.startswith(b"Exif\0\0", start):
                self._add_exif(data[start:place])
        raise _too_many_pieces()

    def _set_frame(self, depth: int, height: int, width: int, layers: int) -> None:
        if depth != 8:
            raise SyntaxError(f"{depth} bits")
        self._size, self._mode = (width, height), _LAYERS[layers]
        # Adobe's programs invert CMYK, and nothing else writes it.
        raw = "CMYK;I" if self._mode == "CMYK" else self._mode
        self.tile = [ImageFile._Tile("jpeg", (0, 0, width, height), 0, (raw, ""))]  # noqa: SLF001

    def _add_exif(self, segment: bytes) -> None:
        """Join the segments of one block, until it is too large to be read."""
        held = self.info.get("exif", b"")
        if len(held) <= exif.LARGEST:
            self.info["exif"] = held + segment[6:]


class _Gif(GifImagePlugin.GifImageFile):
    """A GIF of which only the first frame is read: nothing is disposed of for a second."""

    @property
    def disposal_method(self) -> int:
        return 0

    @disposal_method.setter
    def disposal_method(self, _: int) -> None:
        pass


_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": _Jpeg,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": _Gif,
}

_CHUNK = struct.Struct(">I4s")
_AROUND = 12  # bytes of a chunk beside its data
_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"}
_TEXTS = {b"tEXt", b"zTXt"}
_PROFILE = f"{exif.PROFILE}\0".encode()


def _needed_chunks(data: bytes) -> bytes:
    """Return a PNG without the chunks that neither its pixels nor its orientation need: Pillow
    inflates colour profiles and texts, and keeps the other chunks."""
    view, kept = memoryview(data), []
    start, place, profiles = 0, 8, 0
    left = _most_pieces(len(data))
    while place + _AROUND <= len(data):
        size, kind = _CHUNK.unpack_from(data, place)
        end = place + _AROUND + size
        if end > len(data) or not kind.isalpha():
            break  # damaged: Pillow finds out where
        left -= 1
        if left < 0:
            raise _too_many_pieces()
        if kind in _TEXTS and size <= exif.PROFILE_BYTES and data.startswith(_PROFILE, place + 8):
            profiles += 1
            needed = profiles == 1
        else:
            needed = kind in _NEEDED or (kind == b"eXIf" and size <= exif.LARGEST)
        if not needed:
            kept.append(view[start:place])
            start = end
        place = end
    return b"".join((*kept, view[start:])) if kept else data


def _most_pieces(size: int) -> int:
    return PIXEL_PIECES + size // PIECE


def _too_many_pieces() -> InvalidImage:
    return InvalidImage("The image file is cut into too many pieces.")
