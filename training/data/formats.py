"""Read the published records of MNIST (idx files) and of CIFAR-10 (its binary version).

Knows the formats and checks every shape and range; knows nothing of splits, downloads or counts.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.splits import Split
from training.errors import DataError, translated

_CIFAR_SIDE = 32
_CIFAR_RECORD = 1 + 3 * _CIFAR_SIDE * _CIFAR_SIDE


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; raise ``DataError`` if it cannot be read."""
    with translated(DataError, f"Cannot read {path}"):
        return path.read_bytes()


def read_mnist(folder: Path) -> tuple[Split, Split]:
    """Read the training and the test images of four ``.gz`` files, uint8 ``(N, 28, 28, 1)``."""
    return _read_idx_pair(folder, "train"), _read_idx_pair(folder, "t10k")


def read_cifar10(folder: Path) -> tuple[Split, Split]:
    """Read the training and the test images of six binary files, uint8 ``(N, 32, 32, 3)``."""
    train = (_read_cifar_batch(folder / f"data_batch_{n}.bin") for n in range(1, 6))
    return Split.joined(*train), _read_cifar_batch(folder / "test_batch.bin")


def _read_idx_pair(folder: Path, stem: str) -> Split:
    images = _read_idx(folder / f"{stem}-images-idx3-ubyte.gz", dimensions=3)
    labels = _read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", dimensions=1)
    if images.shape[1:] != (28, 28):
        side = "x".join(map(str, images.shape[1:]))
        raise DataError(f"The images of {folder}/{stem}-… are {side}. Expected: 28x28.")
    if len(images) != len(labels):
        raise DataError(
            f"{folder}/{stem}-… holds {len(images):,} images and {len(labels):,} labels. "
            "Expected: one label for each image."
        )
    _check_labels(labels, folder / f"{stem}-labels-idx1-ubyte.gz")
    return Split(images[..., np.newaxis], labels.astype(np.int64))


def _read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Read a gzipped idx file of unsigned bytes (format: yann.lecun.com/exdb/mnist)."""
    try:
        data = gzip.decompress(read_file(path))
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(f"{path} is damaged: {exc}. Expected: a whole gzip file.") from exc
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(
            f"{path} starts with {data[:4].hex(' ') or 'nothing'}. "
            f"Expected: 00 00 08 0{dimensions}, an idx file of bytes."
        )
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], dtype=">u4"))
    body = np.frombuffer(data, dtype=np.uint8, offset=start)
    if body.size != np.prod(shape, dtype=np.int64):
        size = "x".join(map(str, shape))
        raise DataError(f"{path} holds {body.size:,} bytes. Expected by its header: {size}.")
    return body.reshape(shape)


def _read_cifar_batch(path: Path) -> Split:
    """Read records of one label byte and 3072 pixels, channel by channel, row by row."""
    data = np.frombuffer(read_file(path), dtype=np.uint8)
    if data.size == 0 or data.size % _CIFAR_RECORD:
        raise DataError(
            f"{path} has {data.size:,} bytes. Expected: whole records of {_CIFAR_RECORD:,} bytes."
        )
    records = data.reshape(-1, _CIFAR_RECORD)
    _check_labels(records[:, 0], path)
    planes = records[:, 1:].reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return Split(images, records[:, 0].astype(np.int64))


def _check_labels(labels: NDArray[np.uint8], path: Path) -> None:
    if labels.size and labels.max() > 9:
        raise DataError(f"{path} has a label {labels.max()}. Expected: 0 to 9.")
