"""The peak memory of an image, by format and mode, and of files that promise too much."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from PIL import Image

from serving.app.service import Service
from serving.inference.images import decoder, pixels
from tests.serving.inference.images.dear import FILES, SIDE
from tests.serving.inference.images.test_pixels import encoded, header, png
from tests.serving.monitoring.test_metrics import value
from tests.serving.running import ROOT
from tests.serving.samples import assert_error

# The peak of a process of its own: getrusage would begin with that of the process which forked it.
PEAK = """
import sys
from pathlib import Path
from serving.errors import ServingError
from serving.app.service import Service
from serving.inference.images import pixels

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

data, spec = sys.stdin.buffer.read(), pixels.PixelSpec(8, 8, 3, "stretch")
promised = 0
before = peak()
try:
    image = pixels.open_image(data, max_pixels=10**8)
    promised = pixels.decode_memory(image)
    pixels.decode(image, spec)
except ServingError as exc:
    print(exc, file=sys.stderr)
print(peak() - before, promised)
"""
SLACK = 6 * 1024 * 1024  # tiles, modules that are imported late, and what the allocator keeps

linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads Linux's peak memory"
)


def peak(data: bytes) -> tuple[int, int, str]:
    """Return the bytes that a process needed to decode a file, those that were promised for it, and
    the error, if any."""
    command = [sys.executable, "-c", PEAK]
    made = subprocess.run(command, cwd=ROOT, input=data, capture_output=True, check=True)
    needed, promised = map(int, made.stdout.split())
    return needed, promised, made.stderr.decode()


@linux
@pytest.mark.parametrize("kind", FILES)
def test_an_image_needs_at_most_the_memory_that_is_promised(kind: str) -> None:
    data = FILES[kind]()
    needed, promised, error = peak(data)
    assert not error
    assert needed <= promised + 3 * len(data) + SLACK


TOGETHER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from serving.inference.images import decoder, pixels

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

data, spec = sys.stdin.buffer.read(), pixels.PixelSpec(8, 8, 3, "stretch")
worker = decoder.Decoder(int(sys.argv[1]), processors=4)
before = peak()
with ThreadPoolExecutor(4) as threads:
    list(threads.map(lambda _: worker.read(data, spec), range(8)))
print(peak() - before)
"""


@linux
@pytest.mark.parametrize(
    ("kind", "bytes_for_a_pixel"),
    [("JPEG, CMYK, progressive", 12), ("WEBP, alpha", 16), ("PNG, colour and alpha", 8)],
)
def test_the_images_of_a_worker_need_the_memory_of_the_dearest(
    kind: str, bytes_for_a_pixel: int
) -> None:
    """Decode eight images of the most pixels in four threads."""
    data = FILES[kind]()
    command = [sys.executable, "-c", TOGETHER, str(SIDE * SIDE)]
    made = subprocess.run(command, cwd=ROOT, input=data, capture_output=True, check=True)
    kept = 4 * decoder.TRIM_THRESHOLD[1]  # by the threads, of tiles
    assert int(made.stdout) <= bytes_for_a_pixel * SIDE * SIDE + 4 * 3 * len(data) + kept


MEGA = 1024 * 1024
PICTURE = Image.new("RGB", (8, 8), "red")
JPEG, WEBP = encoded(PICTURE, "JPEG"), encoded(PICTURE, "WEBP", lossless=True)


def bomb(kind: int, size: int, count: int) -> bytes:
    """Write an EXIF block whose orientation is ``count`` values of ``size`` bytes."""
    entry = struct.pack("<HHHII", 1, 0x0112, kind, count, 26)
    return (b"II*\0\x08\0\0\0" + entry).ljust(26 + size * count, b"\1")


def directory() -> bytes:
    """Write an EXIF block of 64 kB in which each of 5,000 tags holds the whole block."""
    entries = b"".join(struct.pack("<HHII", tag, 7, 60_000, 0) for tag in range(1000, 6000))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + entries


SHORTS, LONGS, DOUBLES = bomb(3, 2, 4 * MEGA), bomb(4, 4, 2 * MEGA), bomb(12, 8, MEGA)


def with_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    return png(header(8, 8, 8, 2), bytes(25 * 8), *chunks)


def packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def profile(block: bytes) -> bytes:
    return b"\nexif\n       9\n" + block.hex().encode() + b"\n"


def with_segments(*segments: tuple[int, bytes]) -> bytes:
    made = (bytes((255, kind)) + struct.pack(">H", len(data) + 2) + data for kind, data in segments)
    return JPEG[:2] + b"".join(made) + JPEG[2:]


def webp(**chunks: bytes) -> bytes:
    file = BytesIO()
    PICTURE.save(file, "WEBP", lossless=True, **chunks)
    return file.getvalue()


def international(text: bytes) -> bytes:
    return b"\0\1\0\0\0" + zlib.compress(text, 9)


WIDE = b"a" * (MEGA - 4) + "\N{PILE OF POO}".encode()  # four bytes for each character
FRAME = b"\x08" + struct.pack(">HHB", 8, 8, 3) + b"\1\x11\0" * 21_000
INDEX = b"MPF\0II*\0\x08\0\0\0" + directory()[8:]
# Each is read as the picture that it is, in no more memory than a few copies of the file.
HARMLESS: dict[str, Callable[[], bytes]] = {
    "PNG: 4 million SHORT": lambda: with_chunks((b"eXIf", SHORTS)),
    "PNG: 2 million LONG": lambda: with_chunks((b"eXIf", LONGS)),
    "PNG: a million DOUBLE": lambda: with_chunks((b"eXIf", DOUBLES)),
    "PNG: EXIF in a text": lambda: with_chunks(
        (b"tEXt", b"Raw profile type exif\0" + profile(SHORTS))
    ),
    "PNG: EXIF in a packed text": lambda: with_chunks(
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile(bytes(400_000)), 9))
    ),
    "PNG: 5,000 tags of 60 kB": lambda: with_chunks((b"eXIf", directory())),
    "PNG: profiles": lambda: with_chunks(*[(b"iCCP", b"a\0\0" + packed(MEGA))] * 200),
    "PNG: a large profile": lambda: with_chunks((b"iCCP", b"a\0\0" + packed(9 * MEGA))),
    "PNG: texts": lambda: with_chunks(
        *((b"iTXt", b"%d" % n + international(WIDE)) for n in range(60))
    ),
    "PNG: XMP": lambda: with_chunks((b"iTXt", b"XML:com.adobe.xmp" + international(WIDE))),
    "PNG: chunks of its own": lambda: with_chunks(*[(b"prVt", bytes(60_000))] * 200),
    "WEBP: 4 million SHORT": lambda: webp(exif=SHORTS),
    "WEBP: 5,000 tags of 60 kB": lambda: webp(exif=directory()),
    "WEBP: XMP": lambda: webp(xmp=b'tiff:Orientation="6"' * 400_000),
    "JPEG: 5,000 tags of 60 kB": lambda: with_segments((0xE1, b"Exif\0\0" + directory())),
    "JPEG: EXIF in 300 segments": lambda: with_segments(
        (0xE1, b"Exif\0\0" + directory()), *[(0xE1, b"Exif\0\0" + bytes(60_000))] * 300
    ),
    "JPEG: multi-picture index": lambda: with_segments((0xE2, INDEX)),
    "JPEG: tables": lambda: with_segments(*[(0xDB, bytes(65_000))] * 300),
    "JPEG: comments": lambda: with_segments(*[(0xFE, bytes(60_000))] * 200),
    "JPEG: Photoshop": lambda: with_segments(
        *[(0xED, b"Photoshop 3.0\0" + b"8BIM\4\0\0\0\0\0\0\0" * 5000)] * 100
    ),
}


@linux
@pytest.mark.parametrize("kind", HARMLESS)
def test_what_a_file_promises_beside_its_pixels_needs_no_memory(kind: str) -> None:
    data = HARMLESS[kind]()
    needed, _, error = peak(data)
    assert not error
    assert needed <= 4 * len(data) + SLACK


def gif(side: int) -> bytes:
    """Write a GIF whose frame is cleared before the next one."""
    head = b"GIF89a\1\0\1\0\0\0\0!\xf9\4\x08\0\0\0\0,\0\0\0\0"
    return head + struct.pack("<HH", side, side) + b"\0\2\2L\1\0;"


def bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + info


CANVAS = struct.pack("<I", 0)[:4] + (16_000 - 1).to_bytes(3, "little") * 2
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "GIF: an area to clear": (lambda: gif(12_000), "more pixels than the limit"),
    "GIF: the largest frame": (lambda: gif(65_535), "more pixels than the limit"),
    "WEBP: a canvas": (
        lambda: WEBP[:12] + b"VP8X\x0a\0\0\0" + CANVAS + WEBP[12:],
        "more pixels than the limit",
    ),
    "WEBP: a lossless canvas": (
        lambda: WEBP[:21] + b"\xff\xff\xff\x0f" + WEBP[25:],
        "more pixels than the limit",
    ),
    "WEBP: a lossy canvas": (
        lambda: encoded(PICTURE, "WEBP")[:26] + b"\xff\x3f\xff\x3f" + bytes(99),
        "more pixels than the limit",
    ),
    "PNG: one row": (
        lambda: png(header(5 * 10**7, 1, 16, 6), b""),
        "A side of the image has more pixels than the limit of 65535",
    ),
    "PNG: one column": (lambda: png(header(1, 10**6, 8, 0), b""), "A side of the image"),
    "BMP: one row": (lambda: bmp(5 * 10**7, 1), "A side of the image"),
    "JPEG: frames": (lambda: with_segments(*[(0xC0, FRAME)] * 300), "truncated or damaged"),
    "JPEG: a second, larger frame": (
        lambda: with_segments(
            (0xC2, b"\x08" + struct.pack(">HHB", 8, 8, 3) + FRAME[6:15]),
            (0xC2, b"\x08" + struct.pack(">HHB", 60_000, 60_000, 3) + FRAME[6:15]),
        ),
        "truncated or damaged",
    ),
}


@linux
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_promises_too_much_is_refused_before_it_is_given_memory(kind: str) -> None:
    made, message = HOSTILE[kind]
    data = made()
    needed, _, error = peak(data)
    assert message in error
    assert needed <= 3 * len(data) + SLACK


SHORT = """
import resource, sys
from pathlib import Path
from serving.errors import ServingError
from serving.app.service import Service
from serving.inference.images import pixels

def held():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmSize:")[2].split()[0]) * 1024

data, spec = sys.stdin.buffer.read(), pixels.PixelSpec(8, 8, 3, "stretch")
for more in map(int, sys.argv[1:]):
    resource.setrlimit(resource.RLIMIT_AS, (held() + more * 2**20, resource.RLIM_INFINITY))
    try:
        pixels.read(data, spec, max_pixels=10**8)
    except ServingError as exc:
        print(exc.code)
    else:
        print("read")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def outcomes(data: bytes, *megabytes: int) -> list[str]:
    """Return what becomes of a file in a process that can allocate so many bytes more."""
    command = [sys.executable, "-c", SHORT, *map(str, megabytes)]
    made = subprocess.run(command, cwd=ROOT, input=data, capture_output=True, check=True)
    return made.stdout.decode().split()


@linux
@pytest.mark.parametrize(
    "kind",
    [
        *("JPEG, colour, progressive", "JPEG, CMYK, progressive", "PNG, 1 bit", "PNG, colour"),
        *("PNG, 16-bit grey, a transparent shade", "GIF, transparent", "BMP, colour and alpha"),
        *("WEBP, alpha", "WEBP, lossless"),
    ],
)
def test_a_shortage_of_memory_is_not_blamed_on_the_file(kind: str) -> None:
    found = outcomes(FILES[kind](), 2, 4, 8, 12, 16, 24, 32, 48, 200)
    assert set(found) <= {"out_of_memory", "read"}
    assert found[0] == "out_of_memory"
    assert found[-1] == "read"


@linux
@pytest.mark.parametrize("kind", ["JPEG, colour", "PNG, colour", "WEBP", "GIF", "BMP, colour"])
def test_a_damaged_file_is_no_shortage_of_memory(kind: str) -> None:
    data = FILES[kind]()
    assert outcomes(data[: len(data) // 2], 200) == ["invalid_image"]


def short(image: Image.Image) -> Image.Image:
    if image.width == 8:
        raise MemoryError
    return image


def test_a_shortage_of_memory_is_answered_503_and_counted(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "_upright", short)
    answer = client.post("/predict/tint", data=JPEG, content_type="image/jpeg")
    assert_error(answer, 503, "out_of_memory")
    assert answer.headers["Retry-After"] == "1"
    assert value(client.get("/metrics").text, "convserve_errors_total", code="out_of_memory") == 1


@pytest.mark.parametrize("step", ["decoder.decode", "batcher.predict"])
def test_a_shortage_of_memory_is_no_bug_wherever_it_happens(
    client: FlaskClient, service: Service, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, name = step.split(".")

    async def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(getattr(service.pipeline, part), name, fail)
    answer = client.post("/predict/tint", data=JPEG, content_type="image/jpeg")
    assert_error(answer, 503, "out_of_memory")
