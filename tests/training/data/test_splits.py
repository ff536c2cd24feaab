import hashlib
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data import splits
from training.data.splits import HELD_OUT_PETS, PUBLISHED_PETS, Hashed, Split


def records(values: list[int], labels: list[int]) -> Split:
    """Return one-pixel images of these values."""
    images = np.array(values, np.uint16).astype(">u2").view(np.uint8).reshape(-1, 1, 2, 1)
    return Split(images, np.array(labels, np.int64))


def digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def digests(split: Split) -> list[bytes]:
    return [digest(image) for image in split.images]


def test_images_are_ordered_by_hash_and_then_by_label() -> None:
    hashed = splits.by_hash(records([5, 3, 5, 9], [1, 0, 0, 1]))
    assert list(hashed.hashes) == sorted(hashed.hashes) == digests(hashed.split)
    twins = [
        label
        for image, label in zip(hashed.split.images, hashed.split.labels, strict=True)
        if image.ravel().tolist() == [0, 5]
    ]
    assert twins == [0, 1]
    assert hashed.left_out == ()


def test_a_fifth_of_a_small_class_with_the_lowest_hashes_is_validation() -> None:
    train = records(list(range(19)), [0] * 10 + [1] * 9)
    parts = splits.split_records(train, records([900], [0]))
    assert tuple(parts) == splits.PARTS
    for label, first, last, count in ((0, 0, 10, 2), (1, 10, 19, 1)):
        hashes = sorted(map(digest, train.images[first:last]))
        held, rest = (parts[name].split for name in ("validation", "train"))
        assert [d for d, k in zip(digests(held), held.labels, strict=True) if k == label] == (
            hashes[:count]
        )
        assert [d for d, k in zip(digests(rest), rest.labels, strict=True) if k == label] == (
            hashes[count:]
        )
    assert digests(parts["train"].split) == list(parts["train"].hashes)


def test_at_most_500_of_a_class_are_validation() -> None:
    parts = splits.split_records(records(list(range(2_600)), [3] * 2_600), records([], []))
    assert len(parts["validation"].split.labels) == 500
    assert len(parts["train"].split.labels) == 2_100


def test_copies_are_left_out_of_the_lower_splits_with_their_labels() -> None:
    test = records([100, 100, 101], [0, 1, 1])
    train = records([100, *range(10), *range(10)], [7, *[2] * 10, *[4] * 10])
    parts = splits.split_records(train, test)
    assert parts["test"].left_out == parts["validation"].left_out == ()
    assert len(parts["test"].split.labels) == 3  # copies within a split are kept
    assert parts["validation"].split.labels.tolist().count(2) == 2
    validation = set(parts["validation"].hashes)
    assert not validation & set(parts["train"].hashes)
    left = Counter(parts["train"].left_out)
    assert left[7] == 1
    assert len(parts["train"].hashes) + len(parts["validation"].hashes) + left.total() == 21


@pytest.mark.parametrize(
    ("rank", "part"),
    [
        *((0, "test"), (HELD_OUT_PETS - 1, "test")),
        *((HELD_OUT_PETS, "validation"), (2 * HELD_OUT_PETS - 1, "validation")),
        *((2 * HELD_OUT_PETS, "train"), (PUBLISHED_PETS - 1, "train")),
    ],
)
def test_a_pet_is_assigned_by_its_rank(rank: int, part: str) -> None:
    number = next(n for n in range(PUBLISHED_PETS) if splits.pet_ranks("Dog")[n] == rank)
    assert splits.pet_part("Dog", number) == part


def test_a_pet_is_ranked_by_the_hash_of_its_name() -> None:
    keys = [hashlib.sha256(f"Cat/{n}".encode()).digest() for n in range(PUBLISHED_PETS)]
    assert splits.pet_ranks("Cat")[17] == sum(key < keys[17] for key in keys)


def test_the_content_hash_is_over_the_sorted_lines() -> None:
    split = Split(np.zeros((2, 1, 1, 1), np.uint8), np.array([3, 1], np.int64))
    other = Split(np.zeros((1, 1, 1, 1), np.uint8), np.array([0], np.int64))
    parts = {"train": Hashed(split, (b"\x02", b"\x01")), "test": Hashed(other, (b"\xff",), (5,))}
    lines = "test 0 ff\ntrain 1 01\ntrain 3 02\n"
    assert splits.content_hash(parts) == hashlib.sha256(lines.encode()).hexdigest()


def test_every_image_needs_a_hash() -> None:
    split = Split(np.zeros((2, 1, 1, 1), np.uint8), np.array([3, 1], np.int64))
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is longer"):
        splits.content_hash({"train": Hashed(split, (b"\x02",))})
