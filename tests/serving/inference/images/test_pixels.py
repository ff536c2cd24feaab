"""Real files: every format, mode and oddity that the pixel policy names."""

import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from serving.errors import ImageTooLarge, InvalidImage, OutOfMemory
from serving.inference.images.pixels import FORMATS, PixelSpec, read, read_plain

LIMIT = 25_000_000
GREY = PixelSpec(8, 8, 1, "stretch")
RGB = PixelSpec(8, 8, 3, "stretch")
DIGIT = PixelSpec(28, 28, 1, "digit")
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(header: bytes, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write what Pillow does not: any header, any chunk."""
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def header(width: int, height: int, depth: int, colour: int) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def pixels(data: bytes, spec: PixelSpec = RGB) -> NDArray[np.uint8]:
    return read(data, spec, max_pixels=LIMIT)


def corner(width: int = 16, height: int = 16) -> Image.Image:
    """Return a blue image with a red corner: each of its orientations looks different."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 4))
    return image


@pytest.mark.parametrize("kind", FORMATS)
def test_every_known_format_is_read(kind: str) -> None:
    assert np.abs(pixels(encoded(Image.new("RGB", (8, 8), RED), kind)).astype(int) - RED).max() <= 2


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM", "TGA"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(InvalidImage, match="Known formats: JPEG, PNG, WEBP, BMP, GIF"):
        pixels(encoded(Image.new("RGB", (32, 32), RED), kind))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_reported_with_its_format(kind: str) -> None:
    file = encoded(corner(200, 200), kind)
    for size in (20, len(file) // 2):
        with pytest.raises(InvalidImage, match=f"starts like a {kind} file but is truncated"):
            pixels(file[:size])


@pytest.mark.parametrize(("spec", "shape"), [(GREY, (8, 8, 1)), (RGB, (8, 8, 3))])
def test_pixels_have_the_shape_of_the_model(spec: PixelSpec, shape: tuple[int, ...]) -> None:
    read_pixels = pixels(encoded(Image.new("RGB", (100, 50), RED)), spec)
    assert read_pixels.shape == shape
    assert read_pixels.dtype == np.uint8


def test_an_image_of_the_right_size_is_unchanged() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(pixels(encoded(Image.fromarray(noise))), noise)


@pytest.mark.parametrize(
    ("fit", "ground", "plain"), [("digit", 0, True), ("digit", 255, False), ("stretch", 255, True)]
)
def test_only_a_digit_on_black_needs_nothing_but_inflating(
    fit: str, ground: int, plain: bool
) -> None:
    found = read_plain(encoded(Image.new("L", (28, 28), ground)), PixelSpec(28, 28, 1, fit))
    assert (found is not None) is plain


def test_stretch_is_the_antialiased_bilinear_resize() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8))
    expected = np.asarray(noise.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(pixels(encoded(noise)), expected)


def test_height_and_width_are_not_swapped() -> None:
    wide = PixelSpec(4, 10, 3, "stretch")
    assert np.array_equal(
        read(encoded(corner(10, 4)), wide, max_pixels=LIMIT), np.asarray(corner(10, 4))
    )


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_rotated_photo_is_read_upright(
    orientation: int, stored: Image.Transpose | None, kind: str
) -> None:
    upright = corner(64, 32)
    turned = upright if stored is None else upright.transpose(stored)
    read_pixels = pixels(encoded(turned, kind, exif=exif(orientation), quality=100))
    expected = np.asarray(upright.resize((8, 8), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_pixels - expected).mean() < 4


@pytest.mark.parametrize(
    "broken",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no directory",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        exif(6)[:20],
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\0\0\0\0",
        exif(99),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_is_ignored(broken: bytes, kind: str) -> None:
    image = Image.new("RGB", (8, 8), RED)
    assert np.abs(pixels(encoded(image, kind, exif=broken)).astype(int) - RED).max() <= 2


def test_a_warning_of_pillow_is_neither_an_error_nor_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = encoded(Image.new("RGB", (8, 8)), "JPEG", exif=exif(6)[:20])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pixels(broken)
    assert seen == []
    assert capsys.readouterr().err == ""


def test_warnings_of_other_modules_are_still_shown() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels(encoded(corner()))
        with pytest.raises(UserWarning, match="seen"):
            warnings.warn("seen", stacklevel=1)


def test_transparent_pixels_become_white_whatever_colour_they_hide() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (pixels(encoded(image)) == 255).all()


def test_half_transparent_red_is_pink() -> None:
    read_pixels = pixels(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 128))))
    assert read_pixels[0, 0].tolist() == [255, 127, 127]


@pytest.mark.parametrize(("spec", "expected"), [(GREY, [127]), (RGB, [127, 127, 127])])
def test_grey_with_alpha_is_composited(spec: PixelSpec, expected: list[int]) -> None:
    assert pixels(encoded(Image.new("LA", (8, 8), (0, 128))), spec)[0, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
@pytest.mark.parametrize("size", [37 * 3, 10], ids=["rows", "parts of rows"])
def test_tiles_are_composited_like_the_whole_image(
    mode: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (50, 37, 4), np.uint8)
    image = Image.fromarray(noise, "RGBA").convert(mode)
    options: dict[str, Any] = {"transparency": 7} if mode in ("P", "L") else {}
    options |= {"transparency": tuple(noise[0, 0, :3].tolist())} if mode == "RGB" else {}
    data = encoded(image, **options)
    whole = pixels(data)
    monkeypatch.setattr("serving.inference.images.pixels._TILE", size)
    assert np.array_equal(pixels(data), whole)


def palette() -> Image.Image:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (0, 0, 4, 8))
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_is_looked_up(kind: str) -> None:
    read_pixels = pixels(encoded(palette(), kind))
    assert read_pixels[0, 0].tolist() == list(BLUE)
    assert read_pixels[0, 7].tolist() == list(RED)


@pytest.mark.parametrize(("kind", "transparency"), [("PNG", 1), ("GIF", 1), ("PNG", b"\xff\0")])
def test_a_transparent_palette_entry_is_white(kind: str, transparency: int | bytes) -> None:
    read_pixels = pixels(encoded(palette(), kind, transparency=transparency))
    assert read_pixels[0, 0].tolist() == list(WHITE)
    assert read_pixels[0, 7].tolist() == list(RED)


def test_a_transparent_colour_is_white() -> None:
    read_pixels = pixels(encoded(corner(8, 8), transparency=RED))
    assert read_pixels[0, 0].tolist() == list(WHITE)
    assert read_pixels[7, 7].tolist() == list(BLUE)


def test_every_sixteen_bit_grey_is_scaled_and_rounded() -> None:
    deep = np.arange(65536).astype(np.uint16).reshape(256, 256)
    read_pixels = pixels(encoded(Image.fromarray(deep)), PixelSpec(256, 256, 1, "stretch"))
    assert np.array_equal(read_pixels[..., 0], np.rint(deep / 257))


def test_sixteen_bit_grey_reaches_a_colour_model() -> None:
    deep = np.full((8, 8), 32896, np.uint16)
    assert (pixels(encoded(Image.fromarray(deep)), RGB) == 128).all()


def test_a_transparent_shade_of_sixteen_bit_grey_is_white() -> None:
    rows = b"".join(b"\0" + struct.pack(">8H", *[1000] * 4, *[30000] * 4) for _ in range(8))
    data = png(header(8, 8, 16, 0), rows, (b"tRNS", struct.pack(">H", 1000)))
    assert pixels(data, GREY)[0, :, 0].tolist() == [255] * 4 + [117] * 4


@pytest.mark.parametrize(
    ("colour", "samples", "expected"),
    [
        (2, (65535, 32896, 0), [255, 128, 0]),
        (4, (32896, 65535), [128, 128, 128]),
        (6, (65535, 32896, 0, 65535), [255, 128, 0]),
    ],
    ids=["RGB", "grey and alpha", "RGB and alpha"],
)
def test_other_sixteen_bit_pngs_are_scaled(
    colour: int, samples: tuple[int, ...], expected: list[int]
) -> None:
    row = b"\0" + struct.pack(f">{len(samples)}H", *samples) * 8
    assert pixels(png(header(8, 8, 16, colour), row * 8))[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("ink", "expected"), [((0, 255, 255, 0), RED), ((255, 255, 0, 0), BLUE), ((0, 0, 0, 0), WHITE)]
)
def test_cmyk_jpeg_has_its_colours(
    ink: tuple[int, int, int, int], expected: tuple[int, int, int]
) -> None:
    read_pixels = pixels(encoded(Image.new("CMYK", (8, 8), ink), "JPEG", quality=100))
    assert np.abs(read_pixels.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    image = Image.new("1", (8, 8), 1)
    image.paste(0, (0, 0, 4, 8))
    assert pixels(encoded(image, kind), GREY)[0, :, 0].tolist() == [0] * 4 + [255] * 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, WHITE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(pixels(data).astype(int) - RED).max() <= 2


def test_grey_fills_three_channels() -> None:
    assert (pixels(encoded(Image.new("L", (20, 20), 99))) == 99).all()


def test_a_photo_of_twelve_megapixels_is_read() -> None:
    data = encoded(corner(4000, 3000), "JPEG")
    assert np.abs(pixels(data)[0, 0].astype(int) - RED).max() <= 2


def test_a_colour_profile_is_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (pixels(encoded(Image.new("RGB", (8, 8), RED), icc_profile=profile)) == RED).all()


def test_a_bomb_is_refused() -> None:
    bomb = png(header(30_000, 30_000, 1, 0), bytes(30_000 * (1 + 30_000 // 8)))
    assert len(bomb) < 120_000
    with pytest.raises(ImageTooLarge, match="more pixels than the limit of 25000000"):
        pixels(bomb)


def test_the_size_is_checked_before_the_pixels_are_decoded() -> None:
    without_pixels = png(header(6_000, 6_000, 8, 2), b"")
    with pytest.raises(ImageTooLarge):
        pixels(without_pixels)


@pytest.mark.parametrize(("side", "fits"), [(10, True), (11, False)])
def test_the_limit_itself_is_allowed(side: int, fits: bool) -> None:
    data = encoded(Image.new("L", (side, 10)))
    if fits:
        assert read(data, GREY, max_pixels=100).shape == (8, 8, 1)
    else:
        with pytest.raises(
            ImageTooLarge, match=r"^The image has more pixels than the limit of 100"
        ):
            read(data, GREY, max_pixels=100)


@pytest.mark.parametrize(
    ("step", "spec"),
    [
        ("readers.open_header", RGB),
        ("pixels._upright", RGB),
        ("digit.normalise", DIGIT),
    ],
)
def test_a_shortage_of_memory_is_reported_as_one(
    step: str, spec: PixelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(f"serving.inference.images.{step}", fail)
    with pytest.raises(OutOfMemory, match="not enough memory for the image at the moment"):
        pixels(encoded(corner()), spec)


NOISE = Image.fromarray(
    np.random.default_rng(0).normal(128, 60, (64, 64)).clip(0, 255).astype("u1")
)
WHOLE = encoded(NOISE.convert("RGB"))
BROKEN = {
    "nothing": b"",
    "a text": b"hello, not an image",
    "zeros": b"\0" * 1000,
    "half a PNG": WHOLE[: len(WHOLE) // 2],
    "the start of a PNG": WHOLE[:8],
    "the header of a PNG": WHOLE[:40],
    "half a JPEG": encoded(NOISE, "JPEG")[:900],
    "half a WebP": encoded(NOISE, "WEBP")[:500],
    "half a GIF": encoded(NOISE, "GIF")[:500],
    "half a BMP": encoded(NOISE, "BMP")[:500],
    "no width": png(header(0, 8, 8, 0), b""),
    "no height": png(header(8, 0, 8, 0), b""),
    "three bits": png(header(8, 8, 3, 0), b""),
    "too few rows": png(header(8, 8, 8, 0), b"\0"),
    "no transparent colour": png(header(8, 8, 8, 0), bytes(72), (b"tRNS", b"")),
    "a wrong byte": WHOLE[:100] + bytes([WHOLE[100] ^ 255]) + WHOLE[101:],
    "a GIF without pixels": b"GIF89a\0\0\0\0\0\0\0;",
    "a BMP of zeros": b"BM" + bytes(60),
    "a JPEG without pixels": b"\xff\xd8\xff\xd9",
    "a WebP of zeros": b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(20),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_bytes_that_are_not_an_image_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage) as caught:
        pixels(data)
    assert caught.value.__cause__ is not None


PICTURE = encoded(NOISE.convert("RGB"), "JPEG", progressive=True)
SCAN = PICTURE[PICTURE.rfind(b"\xff\xda\x00") :][:10] + bytes(2)
GIF = encoded(palette(), "GIF")
GIF_PIXELS = GIF.index(b",")


def chunks(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"teSt", b"")] * count


PIECES: dict[str, Callable[[int], bytes]] = {
    "comments of a JPEG": lambda n: PICTURE[:2] + b"\xff\xfe\0\2" * n + PICTURE[2:],
    "chunks before the pixels of a PNG": lambda n: png(header(8, 8, 8, 0), bytes(72), *chunks(n)),
    "chunks behind the pixels of a PNG": lambda n: (
        WHOLE[:-12] + png(b"", b"", *chunks(n))[20 : 20 + 12 * n] + WHOLE[-12:]
    ),
    "blocks of a GIF": lambda n: GIF[:GIF_PIXELS] + b"!\xfe\1a\0" * n + GIF[GIF_PIXELS:],
}


@pytest.mark.parametrize("made", PIECES.values(), ids=PIECES.keys())
def test_a_file_in_far_too_many_pieces_is_refused(made: Callable[[int], bytes]) -> None:
    assert pixels(made(3)).shape == (8, 8, 3)
    with pytest.raises(InvalidImage, match="cut into too many pieces"):
        pixels(made(50_000))


def test_bytes_between_the_segments_of_a_jpeg_are_skipped() -> None:
    assert np.array_equal(pixels(PICTURE[:20] + bytes(200_000) + PICTURE[20:]), pixels(PICTURE))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("size", "turns"), [(60_000, True), (70_000, False)])
def test_a_photo_with_large_exif_is_read_but_not_turned(kind: str, size: int, turns: bool) -> None:
    block = exif(6).ljust(size, b"\0")
    options: dict[str, Any] = {"exif": block, "quality": 100, "lossless": True}
    data = encoded(corner(), kind, **options) if (kind, turns) != ("JPEG", False) else b""
    if not data:  # in two segments, as one holds 64 kB
        head = [block[:60_000], b"Exif\0\0" + block[60_000:]]
        parts = (b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in head)
        plain = encoded(corner(), kind, quality=100)
        data = plain[:2] + b"".join(parts) + plain[2:]
    expected = corner().transpose(Image.Transpose.ROTATE_270) if turns else corner()
    reference = np.asarray(expected.resize((8, 8), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pixels(data) - reference).mean() < 4


def test_exif_in_a_text_of_a_png_is_read() -> None:
    block = exif(6)[6:]
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(corner()))
    chunk = b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)
    turned = corner().transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(pixels(png(header(16, 16, 8, 2), rows, chunk)), pixels(encoded(turned)))


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_a_jpeg_of_any_number_of_layers_but_two_is_read(layers: int) -> None:
    mode = {1: "L", 3: "RGB", 4: "CMYK"}.get(layers, "L")
    data = encoded(Image.new(mode, (8, 8)), "JPEG")
    if layers == 2:
        at = data.index(b"\xff\xc0") + 9
        data = data[:at] + b"\2" + data[at + 1 :]
        with pytest.raises(InvalidImage):
            pixels(data)
    else:
        assert pixels(data).shape == (8, 8, 3)


@pytest.mark.parametrize(("scans", "fits"), [(90, True), (100, False)])
def test_the_scans_of_a_jpeg_are_bounded(scans: int, fits: bool) -> None:
    data = PICTURE[:-2] + SCAN * scans + PICTURE[-2:]
    if fits:
        assert pixels(data).shape == (8, 8, 3)
    else:
        with pytest.raises(InvalidImage, match="more than 100 scans"):
            pixels(data)


def test_scans_are_counted_without_memory_for_each() -> None:
    data = b"\xff\xd8" + b"\xff\xda\x00" * 1_000_000
    tracemalloc.start()
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        pixels(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(("depth", "compression"), [(8, 1), (4, 2)])
def test_a_bmp_in_run_lengths_is_refused(depth: int, compression: int) -> None:
    """A row of a million pixels in a few bytes, which Pillow would decode in Python."""
    info = struct.pack("<IiiHHIIiiII", 40, 10**6, 1, 1, depth, compression, 0, 0, 0, 16, 0)
    file = struct.pack("<IHHI", 0, 0, 0, 54 + 64) + info + bytes(64) + b"\0\0\0\1"
    with pytest.raises(InvalidImage, match="run lengths"):
        pixels(b"BM" + file)


def test_a_large_file_of_many_ordinary_pieces_is_read() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (1200, 1200, 3), np.uint8)
    image = Image.fromarray(noise)
    with_notes = encoded(image, "JPEG", quality=90)
    notes = (b"\xff\xe1" + struct.pack(">H", 60_000) + bytes(59_998)) * 100
    assert pixels(with_notes[:2] + notes + with_notes[2:]).shape == (8, 8, 3)
    rows = b"".join(b"\0" + row.tobytes() for row in noise)
    packed = zlib.compress(rows, 1)
    parts = [(b"IDAT", packed[at : at + 4096]) for at in range(0, len(packed), 4096)]
    head = png(header(1200, 1200, 8, 2), b"", *parts)
    assert np.array_equal(pixels(head), pixels(encoded(image)))


def test_threads_read_at_the_same_time() -> None:
    files = [encoded(Image.new("RGB", (64, 64), (n, 0, 0))) for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        assert [found[0, 0, 0] for found in pool.map(pixels, files * 8)] == [*range(16)] * 8


@pytest.mark.parametrize(
    ("shape", "fit", "message"),
    [
        ((8, 8, 3), "squeeze", "No fit named 'squeeze'. Known fits: stretch, digit."),
        ((8, 8, 2), "stretch", "has 2 channels. Expected 1 or 3"),
        ((32, 32, 1), "digit", "is 32x32x1. The fit 'digit' makes 28x28x1"),
    ],
)
def test_an_invalid_specification_is_refused(
    shape: tuple[int, int, int], fit: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PixelSpec(*shape, fit)


@pytest.mark.parametrize("ink", ["black", "white", "grey"])
def test_ink_on_a_transparent_ground_is_seen_in_any_colour(ink: str) -> None:
    image = Image.new("RGBA", (90, 90), (0, 0, 0, 0))
    image.paste(ink, (40, 20, 50, 70))
    digit = pixels(encoded(image), DIGIT)
    assert digit[14, 14, 0] == 255
    assert digit[0, 0, 0] == 0


def test_a_rotated_photo_of_a_digit_is_turned_first() -> None:
    upright = Image.new("L", (100, 100), 255)
    upright.paste(0, (45, 20, 55, 80))
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif(6))
    rows, columns = np.nonzero(pixels(data, DIGIT)[..., 0])
    assert np.ptp(rows) > np.ptp(columns)
