"""The shipped models behind a real service: odd files are read, broken ones are refused."""

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from bench.rig.service import newest, only
from tests.serving.running import Running, running

MEGA = 1024 * 1024
DIGITS = sorted((newest("digits") / "golden").glob("*.png"))
PETS = sorted((newest("cats_vs_dogs") / "golden").glob("*-[0-3].png"))
(SEVEN,) = (path.read_bytes() for path in DIGITS if path.stem.startswith("7-"))


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    served = [newest("digits"), newest("cats_vs_dogs")]
    with only(served) as models, running(models, log_level="warning") as started:
        yield started


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """Return a sound PNG of 30,000 x 30,000 black pixels in about 100 kB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 30_000 // 8)
    pixels = b"".join(packer.compress(row * 100) for _ in range(300)) + packer.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def form(parts: int) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n1\r\n'
    return part * parts + b"--x--\r\n"


PNG, JSON, FORM = "image/png", "application/json", "multipart/form-data; boundary=x"
REFUSED: dict[str, tuple[str, str, str, Callable[[], bytes], int, str]] = {
    "empty": ("POST", "/predict/digits", PNG, lambda: b"", 400, "bad_request"),
    "text": ("POST", "/predict/digits", PNG, lambda: b"a seven", 400, "invalid_image"),
    "half": (
        "POST",
        "/predict/digits",
        PNG,
        lambda: SEVEN[: len(SEVEN) // 2],
        400,
        "invalid_image",
    ),
    "bomb": ("POST", "/predict/digits", PNG, bomb, 413, "image_too_large"),
    "40 MB": ("POST", "/predict/digits", PNG, lambda: bytes(40 * MEGA), 413, "request_too_large"),
    "model": ("POST", "/predict/dogs", PNG, lambda: SEVEN, 404, "unknown_model"),
    "version": ("POST", "/predict/digits?version=99", PNG, lambda: SEVEN, 404, "unknown_version"),
    "plain": ("POST", "/predict/digits", "text/plain", lambda: SEVEN, 415, "unsupported_media"),
    "method": ("GET", "/predict/digits", PNG, lambda: b"", 405, "method_not_allowed"),
    "parts": ("POST", "/predict/digits", FORM, lambda: form(5_000), 413, "request_too_large"),
    "json": ("POST", "/predict/digits", JSON, lambda: b'{"images": [', 400, "bad_request"),
    "base64": (
        "POST",
        "/predict/digits",
        JSON,
        lambda: b'{"images": ["%%"]}',
        400,
        "invalid_image",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_broken_request_is_refused_and_the_service_continues(
    service: Running, case: tuple[str, str, str, Callable[[], bytes], int, str]
) -> None:
    method, path, kind, body, status, code = case
    got, _, text = service.request(method, path, body(), Content_Type=kind)
    assert (got, json.loads(text)["error"]["code"]) == (status, code)
    assert labels(service, "digits", SEVEN) == "7"


def labels(service: Running, model: str, data: bytes) -> str:
    answer = service.json("POST", f"/predict/{model}", data, Content_Type="image/*")
    return str(answer["predictions"][0]["label"])


def rotated(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90 degrees
    return saved(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)


def transparent(picture: Image.Image) -> bytes:
    ink = Image.new("RGBA", picture.size, "black")
    ink.putalpha(picture.convert("L"))
    return saved(ink, "PNG")


def deep(picture: Image.Image) -> bytes:
    return saved(picture.convert("L").convert("I").point(lambda v: v * 257).convert("I;16"), "PNG")


def animated(picture: Image.Image) -> bytes:
    return saved(picture, "GIF", save_all=True, append_images=[Image.new("L", picture.size)])


def photograph(picture: Image.Image) -> bytes:
    """Return a JPEG of twelve megapixels that the picture fills."""
    page = Image.new(picture.mode, (4000, 3000))
    page.paste(picture.resize((3000, 3000), Image.Resampling.BICUBIC), (500, 0))
    return saved(page, "JPEG", quality=85)


ODD = {
    "rotated JPEG": rotated,
    "palette": lambda picture: saved(picture.convert("P"), "PNG"),
    "CMYK JPEG": lambda picture: saved(picture.convert("CMYK"), "JPEG", quality=95),
    "animated GIF": animated,
    "WebP": lambda picture: saved(picture, "WEBP", lossless=True),
    "12 megapixels": photograph,
}
DIGITS_ONLY = {
    "transparent": transparent,
    "16-bit grey": deep,
    "1 bit": lambda picture: saved(picture.convert("1", dither=Image.Dither.NONE), "PNG"),
    "dark on light": lambda picture: saved(ImageOps.invert(picture.resize((90, 90))), "PNG"),
}


@pytest.mark.parametrize("odd", (ODD | DIGITS_ONLY).values(), ids=(ODD | DIGITS_ONLY).keys())
@pytest.mark.parametrize("path", DIGITS, ids=lambda path: path.stem)
def test_an_odd_file_of_a_digit_is_read(
    service: Running, path: Path, odd: Callable[[Image.Image], bytes]
) -> None:
    with Image.open(path) as picture:
        assert labels(service, "digits", odd(picture)) == path.stem.partition("-")[0]


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("path", PETS, ids=lambda path: path.stem)
def test_an_odd_file_of_a_pet_is_read(
    service: Running, path: Path, odd: Callable[[Image.Image], bytes]
) -> None:
    with Image.open(path) as picture:
        assert labels(service, "cats_vs_dogs", odd(picture)) == path.stem.partition("-")[0]
