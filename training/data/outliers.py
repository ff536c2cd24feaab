"""Pictures that belong to no class, for a network to answer "any class, equally" to.

Outlier exposure: Hendrycks et al., *Deep anomaly detection with outlier exposure*, 2019. The kinds
made here are trained on; ``training.evaluation.unfamiliar`` scores others, and ``SCORED_FONTS`` and
``SCORED_FOREIGN`` are kept for it. Knows what the kinds are; knows nothing of networks.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import pixels
from training.data.datasets import Dataset, load
from training.data.splits import Split

Images = NDArray[np.uint8]

# Letters that no handwritten digit resembles: not I, O, S, Z, b, g, l, o, q, s, z and their like.
LETTERS = "".join(sorted(set(string.ascii_letters) - set("BDGIJLOQSTYZabgijloqstuyz")))
FONTS = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif")  # the first of each family name
SCORED_FONTS = ("STIXGeneral", "cmr10", "cmss10", "cmtt10", "cmb10")
# Classes of CIFAR-10 that are neither cats nor dogs.
FOREIGN = ("airplane", "deer", "frog", "ship")
SCORED_FOREIGN = ("automobile", "bird", "horse", "truck")


def add(data: Dataset, kinds: Sequence[str], *, share: float, seed: int, data_dir: Path) -> Dataset:
    """Return ``data`` with outliers like its images: ``share`` as many as it has training images,
    equally many of each kind.

    Raises:
        DataError: if CIFAR-10, of which some kinds are made, cannot be read.
    """
    if not kinds:
        return data
    rng = np.random.default_rng((seed, 0))
    count = round(share * len(data.train.labels) / len(kinds))
    made = [KINDS[kind](data, count, rng, data_dir) for kind in kinds]
    return replace(data, outliers=np.concatenate(made))


def blank(data: Dataset, count: int, rng: np.random.Generator, _: Path) -> Images:
    """Return images of one colour each; a third of them black or white."""
    colours = rng.integers(0, 256, (count, 1, 1, data.train.images.shape[3]))
    colours[: count // 3] = rng.choice([0, 255], (count // 3, 1, 1, 1))
    return _like(data, colours)


def smooth_noise(data: Dataset, count: int, rng: np.random.Generator, _: Path) -> Images:
    """Return random values on a grid of 2 to 8 cells, interpolated, of random contrast."""
    height, width, channels = data.train.images.shape[1:]
    images = np.empty((count, height, width, channels), np.uint8)
    for image in images:
        grid = rng.uniform(0, 255, (rng.integers(2, 9), rng.integers(2, 9), channels))
        middle, contrast = rng.uniform(0, 255), rng.uniform(0.1, 1.0)
        grid = middle + contrast * (grid - middle)
        image[:] = pixels.enlarge(grid.astype(np.uint8), (height, width))
    return images


def letters(
    _: Dataset, count: int, rng: np.random.Generator, __: Path, names: Sequence[str] = FONTS
) -> Images:
    """Return printed letters, light on dark and framed as MNIST frames its digits."""
    fonts = pixels.fonts(names)
    drawn = [
        pixels.letter(str(rng.choice(list(LETTERS))), fonts[rng.integers(len(fonts))])
        for _ in range(count)
    ]
    return np.stack(drawn)[..., None]


def photographs(data: Dataset, count: int, rng: np.random.Generator, data_dir: Path) -> Images:
    """Return grey parts of CIFAR-10's training images, half of them on a black ground as digits."""
    side = data.train.images.shape[1]
    images = load("cifar10", data_dir=data_dir).train.images
    some = images[rng.integers(len(images), size=count), :side, :side]
    grey = some.mean(axis=3, keepdims=True)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = np.hypot(y, x)[..., None] < rng.uniform(5, 11, (count, 1, 1, 1))
    inside[count // 2 :] = True
    return np.where(inside, grey, 0).astype(np.uint8)


def foreign(data: Dataset, count: int, rng: np.random.Generator, data_dir: Path) -> Images:
    """Return enlarged training images of four classes of CIFAR-10."""
    cifar10 = load("cifar10", data_dir=data_dir)
    return of_classes(cifar10, cifar10.train, FOREIGN, data.train.images.shape[1:3], count, rng)


def of_classes(
    data: Dataset,
    split: Split,
    names: Sequence[str],
    size: tuple[int, ...],
    count: int,
    rng: np.random.Generator,
) -> Images:
    """Return random images of some classes of a split, enlarged to ``size``."""
    allowed = [data.labels.index(name) for name in names]
    rows = np.flatnonzero(np.isin(split.labels, allowed))
    chosen = split.images[rng.choice(rows, count)]
    return np.stack([pixels.enlarge(image, (size[0], size[1])) for image in chosen])


def shuffled_patches(data: Dataset, count: int, rng: np.random.Generator, _: Path) -> Images:
    """Return training images whose 4×4 or 8×8 equal patches change places."""
    images = data.train.images[rng.integers(len(data.train.images), size=count)].copy()
    for image in images:
        parts = int(rng.choice([4, 8]))
        height, width, channels = image.shape
        grid = image.reshape(parts, height // parts, parts, width // parts, channels)
        patches = grid.transpose(0, 2, 1, 3, 4).reshape(
            -1, height // parts, width // parts, channels
        )
        mixed = rng.permutation(patches).reshape(parts, parts, *patches.shape[1:])
        image[:] = mixed.transpose(0, 2, 1, 3, 4).reshape(image.shape)
    return images


def _like(data: Dataset, images: NDArray[np.generic]) -> Images:
    shape = (len(images), *data.train.images.shape[1:])
    return np.broadcast_to(images, shape).astype(np.uint8)


Maker = Callable[[Dataset, int, np.random.Generator, Path], Images]
KINDS: Mapping[str, Maker] = {
    each.__name__: each
    for each in (blank, smooth_noise, letters, photographs, foreign, shuffled_patches)
}
