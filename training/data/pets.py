"""Read the pets: thousands of JPEG files of any size, some of them damaged.

Knows the layout ``PetImages/{Cat,Dog}/N.jpg`` and decodes on all cores; ``splits`` decides
to which split each picture belongs.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import pixels
from training.data.progress import Progress
from training.data.sources import PUBLISHED_PETS
from training.data.splits import PARTS, Hashed, Split, pet_part, pet_rank
from training.errors import DataError, UnreadableImage

KINDS = ("Cat", "Dog")  # the folders, in the order of the labels


@dataclass(frozen=True)
class PetFile:
    """One published picture; ``label`` is the index of its kind."""

    label: int
    number: int
    path: Path

    @property
    def name(self) -> str:
        """The name within the published set, such as ``Cat/666.jpg``."""
        return f"{KINDS[self.label]}/{self.number}.jpg"


def pet_files(folder: Path) -> dict[str, list[PetFile]]:
    """List the published pictures of each split, in its order; strays are passed over."""
    files: dict[str, list[PetFile]] = {part: [] for part in PARTS}
    for label, kind in enumerate(KINDS):
        for file in _numbered(folder / kind, label):
            files[pet_part(kind, file.number)].append(file)
    for part in files.values():
        part.sort(key=lambda file: (pet_rank(KINDS[file.label], file.number), file.label))
    return files


def read_pets(folder: Path, size: tuple[int, int]) -> tuple[dict[str, Hashed], tuple[str, ...]]:
    """Decode all pictures to ``(*size, 3)``; give the splits and the unreadable names."""
    files = pet_files(folder)
    seen: set[bytes] = set()
    unreadable: list[str] = []
    parts: dict[str, Hashed] = {}
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        total = sum(map(len, files.values()))
        with (
            pixels.quiet_exif(),
            Progress(f"decoding {folder.name}", total, unit="image") as progress,
        ):
            for part in reversed(PARTS):  # test first: it stays whole
                parts[part] = _read_part(pool, files[part], size, seen, unreadable, progress)
                seen.update(parts[part].hashes)
    finally:
        pool.shutdown(cancel_futures=True)  # who stops us does not wait for every picture
    return parts, tuple(unreadable)


def readable_bytes(files: list[PetFile]) -> Iterator[tuple[PetFile, bytes]]:
    """Give each file that ``read_pets`` can read, in the order given, with its bytes."""
    for file in files:
        data = _read(file.path)
        try:
            with pixels.quiet_exif():
                pixels.decode(data)
        except UnreadableImage:
            continue
        yield file, data


def _read_part(
    pool: ThreadPoolExecutor,
    files: list[PetFile],
    size: tuple[int, int],
    seen: set[bytes],
    unreadable: list[str],
    progress: Progress,
) -> Hashed:
    images = np.empty((len(files), *size, 3), dtype=np.uint8)
    labels: list[int] = []
    hashes: list[bytes] = []
    left_out: list[int] = []
    for file, decoded in zip(files, pool.map(lambda f: _decode(f, size), files), strict=True):
        progress.advance(1)
        if decoded is None:
            unreadable.append(file.name)
        elif decoded[0] in seen:
            left_out.append(file.label)
        else:
            images[len(hashes)] = decoded[1]
            hashes.append(decoded[0])
            labels.append(file.label)
    split = Split(images[: len(hashes)], np.asarray(labels, dtype=np.int64))
    return Hashed(split, tuple(hashes), tuple(left_out))


def _decode(file: PetFile, size: tuple[int, int]) -> tuple[bytes, NDArray[np.uint8]] | None:
    """Give the hash of the picture at its own size, and the picture at ours."""
    try:
        image = pixels.decode(_read(file.path))
    except UnreadableImage:
        return None
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.tobytes())
    return digest.digest(), pixels.resize(image, size)


def _numbered(folder: Path, label: int) -> Iterator[PetFile]:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as exc:
        raise DataError(f"Cannot list {folder}: {exc.strerror}. Expected: pictures.") from exc
    for name in names:
        match = re.fullmatch(r"(0|[1-9][0-9]*)\.jpg", name)
        if match and int(match[1]) < PUBLISHED_PETS:
            yield PetFile(label, int(match[1]), folder / name)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise DataError(f"Cannot read {path}: {exc.strerror}.") from exc
