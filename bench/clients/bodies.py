"""What the benchmarks send: pictures of every model, as files, forms and JSON.

Knows the published golden images and Pillow; knows nothing of servers.
"""

import base64
import io
import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from bench.clients.wrk import Bodies
from bench.rig.service import newest

NAMES = ("digits", "cifar10", "cats_vs_dogs")
PHOTO = (500, 375)
GRAIN = 12  # of 256, blended into an enlarged golden image: its JPEG gets the size of a camera's
BOUNDARY = "bench"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
FILES = 16  # of a folder of photographs


@cache
def pictures(name: str) -> dict[str, tuple[bytes, ...]]:
    """Return the files of one model by label: golden images, enlarged to photographs for pets."""
    found: dict[str, tuple[bytes, ...]] = {}
    for path in sorted((newest(name) / "golden").glob("*.png")):
        label = path.stem.rpartition("-")[0]
        data = photograph(path) if name == "cats_vs_dogs" else path.read_bytes()
        found[label] = (*found.get(label, ()), data)
    return found


def photograph(path: Path) -> bytes:
    """Enlarge a small picture to a JPEG of usual size, with the grain that a camera leaves."""
    noise = random.Random(path.name)
    with Image.open(path) as small:
        large = small.convert("RGB").resize(PHOTO, Image.Resampling.BICUBIC)
    grain = Image.frombytes("L", PHOTO, noise.randbytes(PHOTO[0] * PHOTO[1])).convert("RGB")
    target = io.BytesIO()
    Image.blend(large, grain, GRAIN / 256).save(target, "JPEG", quality=85)
    return target.getvalue()


def files(name: str, photos: Path | None = None) -> tuple[bytes, ...]:
    """Return different pictures of one model; of the pets those in the folder ``photos``, if given.

    Raises:
        FileNotFoundError: if ``photos`` holds no ``*.jpg``.
    """
    if photos and name == "cats_vs_dogs":
        found = sorted(photos.glob("*.jpg"))[:FILES]
        if not found:
            raise FileNotFoundError(f"{photos} holds no *.jpg.")
        return tuple(path.read_bytes() for path in found)
    return tuple(data for several in pictures(name).values() for data in several)


def single(images: Sequence[bytes]) -> Bodies:
    """Return bodies of one image each, as the file itself."""
    kind = "image/jpeg" if images[0].startswith(b"\xff\xd8") else "image/png"
    return Bodies(images, kind)


def forms(images: Sequence[bytes], count: int) -> Bodies:
    """Return bodies of ``count`` images each, as forms; each form begins with another image."""
    doubled = [images[place % len(images)] for place in range(len(images) + count)]
    several = [form(doubled[start : start + count]) for start in range(len(images))]
    return Bodies(several, FORM, count)


def form(images: Sequence[bytes]) -> bytes:
    """Return a form of image parts."""
    head = b'--%b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    parts = [head % BOUNDARY.encode() + image + b"\r\n" for image in images]
    return b"".join(parts) + b"--%b--\r\n" % BOUNDARY.encode()


def in_json(images: Sequence[bytes]) -> bytes:
    """Return a JSON body of base64 texts."""
    return json.dumps({"images": [base64.b64encode(each).decode() for each in images]}).encode()
