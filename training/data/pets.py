"""Read the pets: thousands of JPEG files of any size, some of them damaged.

Knows the layout ``PetImages/{Cat,Dog}/N.jpg`` and decodes on all cores; ``splits`` assigns each
image to its split.
"""

import csv
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import pixels
from training.data.formats import read_file
from training.data.progress import progress
from training.data.splits import PARTS, PUBLISHED_PETS, Hashed, Split, pet_part, pet_ranks
from training.errors import DataError, UnreadableImage, translated

KINDS = ("Cat", "Dog")  # the folders, in the order of the labels


@dataclass(frozen=True)
class PetFile:
    """One published image; ``label`` is the index of its kind."""

    label: int
    number: int
    path: Path

    @property
    def name(self) -> str:
        """The name within the published set, such as ``Cat/666.jpg``."""
        return f"{KINDS[self.label]}/{self.number}.jpg"


def pet_files(folder: Path) -> dict[str, list[PetFile]]:
    """List the published images of each split, in its order; ignore all other files."""
    files: dict[str, list[PetFile]] = {part: [] for part in PARTS}
    for label, kind in enumerate(KINDS):
        for file in _numbered(folder / kind, label):
            files[pet_part(kind, file.number)].append(file)
    for part in files.values():
        part.sort(key=lambda file: (pet_ranks(KINDS[file.label])[file.number], file.label))
    return files


def unanswerable() -> dict[str, str]:
    """Return the training and validation images that show neither kind, both, the other one or a
    drawing, and the reason of each, by name."""
    with Path(__file__).with_name("pets_left_out.csv").open(encoding="utf-8", newline="") as file:
        return {f"{row['kind']}/{row['number']}.jpg": row["reason"] for row in csv.DictReader(file)}


def read_pets(
    folder: Path, size: tuple[int, int], *, leave_out: Collection[str] = ()
) -> tuple[dict[str, Hashed], tuple[str, ...]]:
    """Decode all images to ``(*size, 3)``; return the splits and the names of unreadable files.

    The images named by ``leave_out`` are missing in train and validation; test stays whole.
    """
    files = pet_files(folder)
    total = sum(map(len, files.values()))
    seen: set[bytes] = set()
    unreadable: list[str] = []
    parts: dict[str, Hashed] = {}
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with pixels.quiet_exif(), progress(f"decoding {folder.name}", total, unit="image") as step:
            for part in reversed(PARTS):  # test first: it stays whole
                images = np.empty((len(files[part]), *size, 3), dtype=np.uint8)
                labels, hashes, left_out = list[int](), list[bytes](), list[int]()
                names, named = list[str](), list[tuple[int, bytes]]()
                decoded = pool.map(lambda file: _decode(file, size), files[part])
                for file, (digest, image) in zip(files[part], decoded, strict=True):
                    step(1)
                    if image is None:
                        unreadable.append(file.name)
                    elif digest in seen:
                        left_out.append(file.label)
                    elif part != "test" and file.name in leave_out:
                        named.append((file.label, digest))
                    else:
                        images[len(hashes)] = image
                        hashes.append(digest)
                        labels.append(file.label)
                        names.append(file.name)
                known = np.asarray(labels, dtype=np.int64)
                split = Split(images[: len(hashes)], known, tuple(names))
                parts[part] = Hashed(split, tuple(hashes), tuple(left_out), tuple(named))
                seen.update(hashes, (digest for _, digest in named))
    finally:
        pool.shutdown(cancel_futures=True)  # a stopped process need not decode the rest
    return parts, tuple(unreadable)


def readable_bytes(files: list[PetFile]) -> Iterator[tuple[PetFile, bytes]]:
    """Yield each file that ``read_pets`` can read, in the order given, with its bytes."""
    for file in files:
        data = read_file(file.path)
        try:
            with pixels.quiet_exif():
                pixels.decode(data)
        except UnreadableImage:
            continue
        yield file, data


def _decode(file: PetFile, size: tuple[int, int]) -> tuple[bytes, NDArray[np.uint8] | None]:
    """Return the hash of the image at its own size, and the image at ours, None if unreadable."""
    try:
        image = pixels.decode(read_file(file.path))
    except UnreadableImage:
        return b"", None
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.tobytes())
    return digest.digest(), pixels.resize(image, size)


def _numbered(folder: Path, label: int) -> Iterator[PetFile]:
    with translated(DataError, f"Cannot list {folder}", "Expected: images."):
        names = [path.name for path in folder.iterdir()]
    for name in names:
        match = re.fullmatch(r"(0|[1-9][0-9]*)\.jpg", name)
        if match and int(match[1]) < PUBLISHED_PETS:
            yield PetFile(label, int(match[1]), folder / name)
