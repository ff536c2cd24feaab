"""PNG files that only need inflating: the same pixels as Pillow's, or none."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from serving.inference.images import png

GREY, RGB = (5, 7, 1), (5, 7, 3)
PIXELS = {
    shape: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8) for shape in (GREY, RGB)
}


def encoded(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def image(shape: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(PIXELS[shape].squeeze())


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("shape", [GREY, RGB])
@pytest.mark.parametrize("level", [0, 9])
def test_the_pixels_are_those_that_were_written(shape: tuple[int, int, int], level: int) -> None:
    found = png.read_plain(encoded(image(shape), compress_level=level), shape)
    assert found is not None
    assert found.dtype == np.uint8
    assert np.array_equal(found, PIXELS[shape])


def test_pixels_may_be_in_several_chunks() -> None:
    whole = encoded(image(RGB))
    size = struct.unpack_from(">I", whole, 33)[0]
    data = whole[41 : 41 + size]
    cut = whole[:33] + chunk(b"IDAT", data[:20]) + chunk(b"IDAT", data[20:]) + chunk(b"IEND", b"")
    found = png.read_plain(cut, RGB)
    assert found is not None
    assert np.array_equal(found, PIXELS[RGB])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(image(GREY)), id="grey"),
        pytest.param(encoded(image(RGB).resize((8, 5))), id="another size"),
        pytest.param(encoded(image(RGB).convert("P")), id="palette"),
        pytest.param(encoded(image(RGB).convert("RGBA")), id="transparency"),
        pytest.param(encoded(image(RGB), transparency=(1, 2, 3)), id="a transparent colour"),
        pytest.param(encoded(image(RGB), exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"), id="EXIF"),
        pytest.param(encoded(image(RGB), dpi=(72, 72)), id="resolution"),
        pytest.param(encoded(image(RGB)) + b"more", id="bytes behind the end"),
        pytest.param(encoded(image(RGB)) + b"\0" * png.LARGEST, id="a large file"),
        pytest.param(encoded(image(RGB))[:-1], id="half an end"),
        pytest.param(encoded(image(RGB))[:40], id="no pixels"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_file_that_needs_more_than_inflating_is_left_to_pillow(data: bytes) -> None:
    assert png.read_plain(data, RGB) is None


def test_a_damaged_file_is_left_to_pillow() -> None:
    sound = encoded(image(RGB))
    for place in range(len(sound)):
        assert (
            png.read_plain(sound[:place] + bytes([sound[place] ^ 0x20]) + sound[place + 1 :], RGB)
            is None
        )


@pytest.mark.parametrize("rows", [zlib.compress(b""), zlib.compress(bytes(50)), b"not deflated"])
def test_pixels_that_cannot_be_inflated_are_left_to_pillow(rows: bytes) -> None:
    written = encoded(image(RGB))[:33] + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert png.read_plain(written, RGB) is None
