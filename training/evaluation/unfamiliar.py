"""How well a file tells ordinary images from pictures of something else.

The score of an image is the file's ``typicality``, or the highest probability of a file that has no
such output. No kind here is a kind that training makes: see ``training.data.outliers``. Knows how
the kinds are made; knows nothing of how a file was made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import outliers, pixels
from training.data.datasets import Dataset, load
from training.evaluation.scoring import typicality

Images = NDArray[np.uint8]
COUNT = 2000  # images of each kind
SEED = 1
KEPT = 0.95  # of the ordinary images, at the threshold of the false positives


@dataclass(frozen=True)
class Separation:
    """The results for one kind, over ``images`` of it and the test split.

    ``auroc``: the probability that an ordinary image scores higher than one of the kind, ties
    counting half. ``passed``: the share of the kind above the threshold that 95 % of the ordinary
    images pass. ``surest``: the highest probability of any class for any image of the kind.
    """

    kind: str
    images: int
    auroc: float
    passed: float
    surest: float


def measure(file: Path, data: Dataset, *, data_dir: Path) -> list[Separation]:
    """Score ``COUNT`` images of each kind against the test split of ``data``, whose images have the
    file's size."""
    ordinary, _ = typicality(file, data.test.images)
    results: list[Separation] = []
    for name, make in kinds(data.name).items():
        rng = np.random.default_rng((SEED, len(results)))
        images = make(data, COUNT, rng, data_dir)
        scores, answers = typicality(file, images)
        results.append(
            Separation(
                kind=name.replace("_", " "),
                images=len(images),
                auroc=auroc(ordinary, scores),
                passed=float(np.mean(scores >= np.quantile(ordinary, 1 - KEPT))),
                surest=float(answers.max()),
            )
        )
    return results


def auroc(ordinary: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the area under the ROC curve, 0-1, from scores ``(N,)`` and ``(M,)``: the statistic
    of Mann and Whitney, 1947, over N·M."""
    ordinary = np.sort(ordinary)
    above = len(ordinary) - np.searchsorted(ordinary, other, "right")
    equal = np.searchsorted(ordinary, other, "right") - np.searchsorted(ordinary, other, "left")
    return float(np.mean(above + equal / 2) / len(ordinary))


def table(results: list[Separation]) -> list[str]:
    """Return the results as lines of a Markdown table."""
    lines = ["| Kind | Images | AUROC | False positives at 95 % | Highest probability |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    lines += [
        f"| {each.kind} | {each.images:,} | {each.auroc:.4f} | {each.passed:.2%} "
        f"| {each.surest:.3f} |"
        for each in results
    ]
    return lines


def white_noise(data: Dataset, count: int, rng: np.random.Generator, _: Path) -> Images:
    """Return independent pixels, uniform over all levels."""
    return rng.integers(0, 256, (count, *data.test.images.shape[1:]), np.uint8)


def blank(data: Dataset, _: int, __: np.random.Generator, ___: Path) -> Images:
    """Return an even image of each of the 256 levels."""
    levels = np.arange(256, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (256, *data.test.images.shape[1:])).copy()


def scribbles(data: Dataset, count: int, rng: np.random.Generator, _: Path) -> Images:
    """Return a long random curve on each image: a random walk of smoothed direction, of random
    width and colour; white on black where the images are grey."""
    height, width, channels = data.test.images.shape[1:]
    steps = 400
    turns = np.cumsum(rng.normal(0, 0.25, (count, steps)), axis=1)
    turns += rng.uniform(0, 2 * np.pi, (count, 1))
    path = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=2), axis=1)
    path -= path.min(axis=1, keepdims=True)
    path *= (0.7 * np.array([height, width]) / path.max(axis=(1, 2), keepdims=True)[:, 0])[:, None]
    path += 0.15 * np.array([height, width])
    rows, columns = np.mgrid[:height, :width]
    images = np.empty((count, height, width, channels), np.uint8)
    for image, points in zip(images, path, strict=True):
        nearest = np.full((height, width), np.inf)
        for y, x in points[::2]:
            np.minimum(nearest, (rows - y) ** 2 + (columns - x) ** 2, out=nearest)
        radius = rng.uniform(0.03, 0.06) * height
        ink = np.clip(radius + 0.5 - np.sqrt(nearest), 0, 1)[..., None]
        ground, colour = (0, 255) if channels == 1 else rng.integers(0, 256, (2, channels))
        image[:] = ground + ink * (colour - np.asarray(ground))
    return images


def two_digits(data: Dataset, count: int, rng: np.random.Generator, _: Path) -> Images:
    """Return two test digits side by side, scaled into the frame of one."""
    left, right = (data.test.images[rng.integers(len(data.test.images), size=count)] for _ in "12")
    both = np.concatenate([left[:, :, 3:-3], right[:, :, 3:-3]], axis=2)
    framed = np.zeros((count, 28, 28, 1), np.uint8)
    for image, pair in zip(framed, both, strict=True):
        image[6:22, 2:26] = pixels.enlarge(pair, (16, 24))
    return framed


def letters(data: Dataset, count: int, rng: np.random.Generator, data_dir: Path) -> Images:
    """Return printed letters of the fonts that training does not use."""
    return outliers.letters(data, count, rng, data_dir, outliers.SCORED_FONTS)


def pets(data: Dataset, count: int, rng: np.random.Generator, data_dir: Path) -> Images:
    """Return grey test photographs of cats and dogs."""
    images = load("cats_vs_dogs", data_dir=data_dir, size=data.test.images.shape[1:3]).test.images
    grey = images[rng.integers(len(images), size=count)].mean(axis=3, keepdims=True)
    return np.asarray(grey, np.uint8)


def mnist(data: Dataset, count: int, rng: np.random.Generator, data_dir: Path) -> Images:
    """Return enlarged test digits, in three equal channels."""
    images = load("mnist", data_dir=data_dir).test.images
    height, width, channels = data.test.images.shape[1:]
    chosen = images[rng.integers(len(images), size=count)]
    return np.stack([pixels.enlarge(image, (height, width)) for image in chosen]).repeat(
        channels, 3
    )


def foreign(data: Dataset, count: int, rng: np.random.Generator, data_dir: Path) -> Images:
    """Return enlarged test images of the classes of CIFAR-10 that training does not use."""
    cifar10 = load("cifar10", data_dir=data_dir)
    size = data.test.images.shape[1:3]
    names = outliers.SCORED_FOREIGN
    return outliers.of_classes(cifar10, cifar10.test, names, size, count, rng)


Maker = Callable[[Dataset, int, np.random.Generator, Path], Images]


def kinds(dataset: str) -> Mapping[str, Maker]:
    """Return the kinds that a data set's models are scored on, by name; empty if there are none."""
    makers: dict[str, tuple[Maker, ...]] = {
        "mnist": (white_noise, scribbles, two_digits, pets, letters, blank),
        "cifar10": (mnist, white_noise, scribbles),
        "cats_vs_dogs": (foreign, mnist, white_noise),
    }
    return {make.__name__: make for make in makers.get(dataset, ())}
