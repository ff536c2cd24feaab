"""The three published data sets: addresses, hashes, folders, labels and counts.

Pure data; knows nothing of how they are fetched, read or split.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.data.download import Archive
from training.data.formats import read_cifar10, read_mnist
from training.data.splits import HELD_OUT_PETS, PUBLISHED_PETS, Split


@dataclass(frozen=True)
class Source:
    """A data set as published.

    ``train`` and ``test`` count the images of each class; ``train`` includes validation images.
    ``share`` is the least share of them that counts as the whole set.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    folder: str
    side: int | None  # in pixels; None if every image has its own
    archives: tuple[Archive, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    share: float = 1.0
    read: Callable[[Path], tuple[Split, Split]] | None = None  # None: a folder of pets


_MNIST = {  # the names without `-ubyte.gz`
    "train-images-idx3": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="mnist",
            title="MNIST",
            labels=tuple("0123456789"),
            folder="mnist",
            side=28,
            archives=tuple(
                Archive(
                    f"{name}-ubyte.gz",
                    sha256,
                    tuple(f"{mirror}/{name}-ubyte.gz" for mirror in _MNIST_MIRRORS),
                )
                for name, sha256 in _MNIST.items()
            ),
            train=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
            test=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
            read=read_mnist,
        ),
        Source(
            name="cifar10",
            title="CIFAR-10",
            labels=(
                *("airplane", "automobile", "bird", "cat", "deer"),
                *("dog", "frog", "horse", "ship", "truck"),
            ),
            folder="cifar-10-batches-bin",
            side=32,
            archives=(
                Archive(
                    "cifar-10-binary.tar.gz",
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                ),
            ),
            train=(5000,) * 10,
            test=(1000,) * 10,
            read=read_cifar10,
        ),
        Source(
            name="cats_vs_dogs",
            title="Cats vs dogs",
            labels=("cat", "dog"),
            folder="PetImages",
            side=None,
            archives=(
                Archive(
                    "kagglecatsanddogs_5340.zip",
                    "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
                    (
                        "https://download.microsoft.com/download/3/E/1/"
                        "3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
                    ),
                ),
            ),
            train=(PUBLISHED_PETS - HELD_OUT_PETS,) * 2,
            test=(HELD_OUT_PETS,) * 2,
            share=0.8,  # a few published files are unreadable, and copies differ in what they keep
        ),
    )
}
