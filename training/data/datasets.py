"""The three data sets, read, checked and split: ``mnist``, ``cifar10``, ``cats_vs_dogs``.

A set in its published layout under the data folder is used as it is; a missing set is fetched.
Knows the counts of a whole set; knows nothing of networks, augmentation or HTTP.

A file named ``SUBSET`` in its folder declares a set to be partial: fewer images are accepted.
"""

import math
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import pixels
from training.data.download import fetch
from training.data.pets import pet_files, read_pets, readable_bytes
from training.data.sources import SOURCES, Source
from training.data.splits import Hashed, Split, content_hash, split_records
from training.errors import DataError, UsageError, translated

SUBSET = "SUBSET"


@dataclass(frozen=True)
class Dataset:
    """The three splits of a set; ``content_hash`` identifies its content, ``notes`` are for people.

    ``extra`` counts training images from elsewhere: see ``training.data.feedback_images``.
    ``outliers`` are images of no class, uint8 ``(M, H, W, C)``: see ``training.data.outliers``.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    content_hash: str
    notes: tuple[str, ...]
    extra: int = 0
    outliers: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Upload:
    """One test image as the file that a client would send, and its true label."""

    filename: str
    data: bytes
    content_type: str
    label: str


def default_data_dir() -> Path:
    """Return ``DATA_DIR``, else ``convserve`` in the user's cache folder."""
    if given := os.environ.get("DATA_DIR"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convserve"


def load(
    name: str,
    *,
    data_dir: Path,
    size: tuple[int, int] | None = None,
    leave_out: Collection[str] = (),
) -> Dataset:
    """Read, check and split a data set; fetch it first if its folder is missing.

    ``size`` is the height and width in pixels to which pets are stretched; the other sets have a
    fixed size. ``leave_out`` names pets, such as ``Cat/666.jpg``, that are neither trained nor
    validated on.

    Raises:
        UsageError: if the data set is unknown or cannot be read at that size.
        DataError: if it cannot be fetched, or differs from what was published.
    """
    source = _source(name)
    _check_size(source, size)
    folder = _folder(source, data_dir)
    unreadable: Sequence[str] = ()
    if source.read:
        parts = split_records(*source.read(folder))
    else:
        parts, unreadable = read_pets(folder, size or (0, 0), leave_out=leave_out)
    _check_counts(source, folder, parts)
    return Dataset(
        name=source.name,
        labels=source.labels,
        train=parts["train"].split,
        validation=parts["validation"].split,
        test=parts["test"].split,
        content_hash=content_hash(parts),
        notes=tuple(_notes(source, parts, unreadable)),
    )


def test_uploads(name: str, *, data_dir: Path) -> Iterator[Upload]:
    """Yield the test split, in its order, as files: PNG without loss, pets as published."""
    source = _source(name)
    if source.read:
        test = load(name, data_dir=data_dir).test
        for number, (image, label) in enumerate(zip(test.images, test.labels, strict=True)):
            png = pixels.encode_png(image)
            yield Upload(f"{number:05d}.png", png, "image/png", source.labels[label])
    else:
        files = pet_files(_folder(source, data_dir))["test"]
        for file, data in readable_bytes(files):
            filename = file.name.replace("/", "-")
            yield Upload(filename, data, pixels.media_type(data), source.labels[file.label])


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise UsageError(f"No data set named {name!r}. Known data sets: {', '.join(SOURCES)}.")
    return SOURCES[name]


def _check_size(source: Source, size: tuple[int, int] | None) -> None:
    side = source.side
    if side is None:
        fits, expected = size is not None and min(size) > 0, "pixels, at least 1×1"
    else:
        fits, expected = size in (None, (side, side)), f"{side}×{side}"
    if not fits:
        asked = size and "×".join(map(str, size))
        raise UsageError(f"{source.title} cannot be read at size {asked}. Expected: {expected}.")


def _folder(source: Source, data_dir: Path) -> Path:
    folder = data_dir / source.folder
    with translated(DataError, f"{folder} cannot be read"):
        there = folder.is_dir()
    if not there:
        fetch(source.archives, folder, mirror=os.environ.get("DATA_MIRROR"))
    return folder


def _check_counts(source: Source, folder: Path, parts: Mapping[str, Hashed]) -> None:
    """Raise ``DataError`` if a class has too few or too many images, or none in a split."""
    subset = (folder / SUBSET).exists()
    for kind, names, published in (
        ("training", ("train", "validation"), source.train),
        ("test", ("test",), source.test),
    ):
        found = _per_class(source, *(parts[name] for name in names))
        for label, count, full in zip(source.labels, found, published, strict=True):
            least = 1 if subset else math.ceil(source.share * full)
            if not least <= count <= full:
                raise DataError(
                    f"{source.title} in {folder} has {sum(found):,} {kind} images, {count:,} of "
                    f"them {label!r}. Expected: {sum(published):,}, {full:,} of them {label!r}. "
                    f"(A file named {SUBSET} in the folder declares a partial set.)"
                )
    for part, hashed in parts.items():
        missing = set(range(len(source.labels))) - set(hashed.split.labels.tolist())
        if missing:
            labels = ", ".join(source.labels[label] for label in sorted(missing))
            raise DataError(f"{source.title} in {folder} has no {part} image of: {labels}.")


def _per_class(source: Source, *parts: Hashed) -> list[int]:
    labels = Counter(
        label
        for part in parts
        for label in (
            *part.split.labels.tolist(),
            *part.left_out,
            *(each for each, _ in part.named),
        )
    )
    return [labels[index] for index in range(len(source.labels))]


def _notes(source: Source, parts: Mapping[str, Hashed], unreadable: Sequence[str]) -> Iterator[str]:
    present = sum(sum(_per_class(source, hashed)) for hashed in parts.values())
    published = sum(source.train) + sum(source.test)
    if present < published:
        yield f"{present:,} of the {published:,} published images are present and readable."
    if unreadable:
        yield f"Unreadable files left out: {len(unreadable):,} ({', '.join(unreadable)})."
    for part, hashed in parts.items():
        if hashed.left_out:
            held = "test" if part == "validation" else "test or validation"
            yield f"Images left out of {part}: {len(hashed.left_out):,} (pixels occur in {held})."
        if hashed.named:
            yield (
                f"Images left out of {part}: {len(hashed.named):,} (unanswerable or wrong, each "
                "for a reason in `training/data/pets_left_out.csv`; test keeps all of its images)."
            )
