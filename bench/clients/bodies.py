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
GRAIN = 12  # of a photograph made from a golden image: its JPEG then is as large as a camera's
BOUNDARY = "bench"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
FILES = 16  # of a folder of photographs


@cache
def pictures(name: str) -> dict[str, tuple[bytes, ...]]:
    """Files of one model by their label: test images as published, and of the pets photographs."""
    found: dict[str, tuple[bytes, ...]] = {}
    for path in sorted((newest(name) / "golden").glob("*.png")):
        label = path.stem.rpartition("-")[0]
        data = photograph(path) if name == "cats_vs_dogs" else path.read_bytes()
        found[label] = (*found.get(label, ()), data)
    return found


def photograph(path: Path) -> bytes:
    """A JPEG of a usual size from a small picture, with the grain that enlarging has lost."""
    noise = random.Random(path.name)
    with Image.open(path) as small:
        large = small.convert("RGB").resize(PHOTO, Image.Resampling.BICUBIC)
    grain = Image.frombytes("L", PHOTO, noise.randbytes(PHOTO[0] * PHOTO[1])).convert("RGB")
    target = io.BytesIO()
    Image.blend(large, grain, GRAIN / 256).save(target, "JPEG", quality=85)
    return target.getvalue()


def files(name: str, photos: Path | None = None) -> tuple[bytes, ...]:
    """Different pictures of one model; for the pets those of the folder ``photos``, if given."""
    if photos and name == "cats_vs_dogs":
        found = sorted(photos.glob("*.jpg"))[:FILES]
        if not found:
            raise FileNotFoundError(f"{photos} holds no *.jpg.")
        return tuple(path.read_bytes() for path in found)
    return tuple(data for several in pictures(name).values() for data in several)


def single(pictured: Sequence[bytes]) -> Bodies:
    """One picture a request, as the file itself."""
    kind = "image/jpeg" if pictured[0].startswith(b"\xff\xd8") else "image/png"
    return Bodies(pictured, kind)


def forms(pictured: Sequence[bytes], count: int) -> Bodies:
    """So many pictures a request, as a form; every request begins with another one."""
    turned = [
        [pictured[(turn + place) % len(pictured)] for place in range(count)]
        for turn in range(len(pictured))
    ]
    return Bodies([form(each) for each in turned], FORM, count)


def form(pictured: Sequence[bytes]) -> bytes:
    """A form of image parts."""
    head = b'--%b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    parts = [head % BOUNDARY.encode() + picture + b"\r\n" for picture in pictured]
    return b"".join(parts) + b"--%b--\r\n" % BOUNDARY.encode()


def in_json(pictured: Sequence[bytes]) -> bytes:
    """A JSON body of base64."""
    return json.dumps({"images": [base64.b64encode(each).decode() for each in pictured]}).encode()
