"""The rules of splitting, the same on every machine and independent of any order on disk.

- MNIST and CIFAR-10: test is the published test set. Of the published training set, the 500
  images of each class whose pixels have the lowest SHA-256 are validation, the others train.
- Pets: image ``N`` of a kind is ranked by SHA-256 of ``Cat/N`` among the 12,500 published
  numbers. The first 1,250 ranks are test, the next 1,250 validation, the others train.

An image whose pixels occur in test is left out of validation and train; an image whose pixels
occur in validation is left out of train. Each split is ordered by the same hashes. Knows nothing
of files.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "validation", "test")
PUBLISHED_PETS = 12_500  # of each kind, numbered from 0
HELD_OUT_PETS = 1_250  # of each kind, in test and again in validation
_VALIDATION_PER_CLASS = 500


@dataclass(frozen=True)
class Split:
    """Images, uint8 ``(N, H, W, C)``, the index of the label of each, int64 ``(N,)``, and their
    names if they are files."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()

    @classmethod
    def joined(cls, *splits: "Split") -> "Split":
        """Return the images of all splits, one split after the other."""
        return cls(
            np.concatenate([each.images for each in splits]),
            np.concatenate([each.labels for each in splits]),
        )


@dataclass(frozen=True)
class Hashed:
    """A split, the SHA-256 of the pixels of each image, the labels of copies left out, and label
    and hash of each image left out by name."""

    split: Split
    hashes: tuple[bytes, ...]
    left_out: tuple[int, ...] = ()
    named: tuple[tuple[int, bytes], ...] = ()


def split_records(train: Split, test: Split) -> dict[str, Hashed]:
    """Split the published training and test images into ``PARTS``."""
    rest, held_out = by_hash(train), by_hash(test)
    chosen = _lowest_of_each_class(rest, _unlike(rest, held_out))
    validation = _take(rest, chosen)
    kept = _unlike(rest, held_out, validation)
    left_out = sorted(set(range(len(rest.hashes))) - {*chosen, *kept})
    return {
        "train": replace(_take(rest, kept), left_out=tuple(rest.split.labels[left_out].tolist())),
        "validation": validation,
        "test": held_out,
    }


def pet_part(kind: str, number: int) -> str:
    """Return the split of a published image."""
    rank = pet_ranks(kind)[number]
    if rank < HELD_OUT_PETS:
        return "test"
    return "validation" if rank < 2 * HELD_OUT_PETS else "train"


@cache
def pet_ranks(kind: str) -> dict[int, int]:
    """Return the rank, from 0, of each published image of a kind, by its number."""

    def key(number: int) -> bytes:
        return hashlib.sha256(f"{kind}/{number}".encode()).digest()

    return {number: rank for rank, number in enumerate(sorted(range(PUBLISHED_PETS), key=key))}


def content_hash(parts: Mapping[str, Hashed]) -> str:
    """Hash the pixels, the label and the split of every image, in any order.

    Images left out by name count as if they were there, so that the first word identifies the whole
    set, and with it the test split; ``without`` and a hash of those images follow.
    """
    kept = [
        (part, label, value)
        for part, hashed in parts.items()
        for value, label in zip(hashed.hashes, hashed.split.labels.tolist(), strict=True)
    ]
    named = [(part, *each) for part, hashed in parts.items() for each in hashed.named]
    whole = _digest([*kept, *named])
    return f"{whole} without {_digest(named)[:12]}" if named else whole


def _digest(images: Iterable[tuple[str, int, bytes]]) -> str:
    lines = sorted(f"{part} {label} {value.hex()}\n" for part, label, value in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def by_hash(split: Split) -> Hashed:
    """Hash the pixels of each image, and order the images by hash."""
    hashes = tuple(hashlib.sha256(image).digest() for image in split.images)
    order = sorted(range(len(hashes)), key=lambda row: (hashes[row], split.labels[row]))
    return _take(Hashed(split, hashes), order)


def _take(whole: Hashed, rows: Sequence[int]) -> Hashed:
    index = np.asarray(rows, dtype=np.int64)
    split = Split(whole.split.images[index], whole.split.labels[index])
    return Hashed(split, tuple(whole.hashes[row] for row in rows))


def _unlike(whole: Hashed, *others: Hashed) -> list[int]:
    """Return the rows whose pixels do not occur in the other splits."""
    known = {value for other in others for value in other.hashes}
    return [row for row, value in enumerate(whole.hashes) if value not in known]


def _lowest_of_each_class(whole: Hashed, rows: Sequence[int]) -> list[int]:
    """Pick the first 500 rows of each class, a fifth in a small class; rows are in hash order."""
    of_class: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        of_class[int(whole.split.labels[row])].append(row)
    first = (each[: min(_VALIDATION_PER_CLASS, len(each) // 5)] for each in of_class.values())
    return sorted(chain.from_iterable(first))
