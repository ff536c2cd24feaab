"""Write a tiny data folder in the official layouts: small, learnable, every image different.

Every class is a bright square at a different place (digits, things) or side (pets).
"""

import gzip
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.datasets import SUBSET
from training.data.pets import KINDS
from training.data.splits import pet_part

TRAIN, TEST = 30, 10  # images of each class; a fifth of the former becomes validation


def write_tiny_data(data_dir: Path) -> Path:
    """Write all three sets, 300 + 100, 300 + 100 and 60 + 20 images; return ``data_dir``."""
    write_mnist(data_dir / "mnist")
    write_cifar10(data_dir / "cifar-10-batches-bin")
    write_pets(data_dir / "PetImages")
    return data_dir


def write_mnist(folder: Path) -> None:
    for seed, (stem, each) in enumerate((("train", TRAIN), ("t10k", TEST))):
        images, labels = squares(each, side=28, channels=1, seed=seed)
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images[..., 0])
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", labels)
    (folder / SUBSET).touch()


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = np.array(array.shape, dtype=">u4").tobytes()
    data = bytes((0, 0, 8, array.ndim)) + shape + array.tobytes()
    path.write_bytes(gzip.compress(data, mtime=0))


def write_cifar10(folder: Path) -> None:
    folder.mkdir(parents=True)
    records = cifar_records(*squares(TRAIN, side=32, channels=3, seed=2))
    for number, batch in enumerate(np.array_split(records, 5), start=1):
        (folder / f"data_batch_{number}.bin").write_bytes(batch.tobytes())
    test = cifar_records(*squares(TEST, side=32, channels=3, seed=3))
    (folder / "test_batch.bin").write_bytes(test.tobytes())
    (folder / SUBSET).touch()


def cifar_records(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels[:, np.newaxis], planes], axis=1)


def write_pets(folder: Path) -> None:
    random = np.random.default_rng(4)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for number in pet_numbers(kind):
            height, width = random.integers(40, 90, size=2)
            image = random.integers(0, 90, size=(height, width, 3), dtype=np.uint8)
            left, right = image[:, : width // 2], image[:, width // 2 :]
            (left if kind == "Cat" else right)[:] += 150
            (folder / kind / f"{number}.jpg").write_bytes(jpeg(image))
    (folder / SUBSET).touch()


def pet_numbers(kind: str) -> list[int]:
    """Return the lowest published numbers that put 20, 10 and 10 images into the splits."""
    wanted = {"train": 20, "validation": 10, "test": 10}
    numbers = []
    for number in range(2_000):
        part = pet_part(kind, number)
        if wanted[part]:
            wanted[part] -= 1
            numbers.append(number)
    return numbers


def jpeg(image: NDArray[np.uint8]) -> bytes:
    out = BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=90)
    return out.getvalue()


def squares(
    each: int, *, side: int, channels: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return ``each`` images of ten classes: dark noise, and a bright square placed by class."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(10, dtype=np.uint8), each))
    shape = (len(labels), side, side, channels)
    images = random.integers(0, 60, size=shape, dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = 2 + 12 * (label // 5), 1 + 5 * (label % 5)
        image[top : top + 10, left : left + 5] += 180
    return images, labels
