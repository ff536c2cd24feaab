"""The pictures of a model card, each a matplotlib figure, and their small PNG files.

Knows matplotlib, and Pillow for the files; measures nothing, and knows nothing of Keras or
Markdown.
"""

from collections.abc import Collection, Mapping
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from training.data.splits import Split
from training.evaluation.calibration import BINS, calibration_error, reliability

MISTAKES = 16
MAPS = 8  # feature maps of an image
COLOURS = 256
# Prewitt's kernel: it detects vertical edges, its transpose horizontal ones.
EDGES = np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]], np.float32)

Answers = NDArray[np.float32]
Images = NDArray[np.uint8]


def save(figure: Figure, path: Path) -> None:
    """Write a PNG with a palette: a third of the size, with fewer shades in photographs."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=80, format="png")
    with Image.open(drawn) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def learning_curves(history: Mapping[str, list[float]]) -> Figure:
    """Draw loss and accuracy by epoch, for training and validation."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            values = history.get(key, [])
            axes.plot(range(1, len(values) + 1), values, label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def confusion_matrix(counts: NDArray[np.int64], labels: tuple[str, ...]) -> Figure:
    """Draw the counts, coloured by the share of the true class."""
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color=colour)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=45, ha="right")
    axes.set_yticks(places, labels)
    axes.set(xlabel="answer", ylabel="truth")
    return figure


def reliability_diagrams(before: Answers, after: Answers, split: Split) -> Figure:
    """Draw accuracy against confidence in ten bins, before and after temperature scaling; a
    calibrated model is on the diagonal."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, when, answers in zip(panels, ("before", "after"), (before, after), strict=True):
        error = calibration_error(answers, split.labels)
        _reliability(axes, answers, split)
        axes.set_title(f"{when} temperature scaling: error {error:.2%}", fontsize=10)
    panels[0].set_ylabel("accuracy")
    panels[0].legend(loc="upper left")
    return figure


def _reliability(axes: Axes, answers: Answers, split: Split) -> None:
    count, mean, accuracy = reliability(answers, split.labels)
    filled = count > 0
    axes.bar(
        (np.arange(BINS) + 0.5) / BINS, accuracy, width=0.9 / BINS, alpha=0.4, label="accuracy"
    )
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--")
    axes.plot(mean[filled], accuracy[filled], "o", label="mean confidence")
    axes.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1))


def mistakes(answers: Answers, split: Split, labels: tuple[str, ...]) -> Figure:
    """Draw the wrong answers with the highest confidence."""
    wrong = np.flatnonzero(answers.argmax(axis=1) != split.labels)
    worst = wrong[np.argsort(-answers[wrong].max(axis=1), kind="stable")][:MISTAKES]
    figure = Figure(figsize=(8, 8.6), layout="constrained")
    for axes, index in zip_longest(figure.subplots(4, MISTAKES // 4).ravel(), worst):
        axes.set_axis_off()
        if index is None:
            continue
        _show(axes, split.images[index])
        truth, answer = labels[split.labels[index]], labels[answers[index].argmax()]
        axes.set_title(f"{truth}, not {answer}\n({answers[index].max():.1%})", fontsize=9)
    return figure


def edges(images: Images) -> Figure:
    """Draw each image, and the response of a vertical and a horizontal edge kernel to it."""
    greys = [image.mean(axis=2) for image in images]
    columns: dict[str, Collection[NDArray[Any]]] = {
        "image": images,
        "vertical edges": [np.abs(filtered(grey, EDGES)) for grey in greys],
        "horizontal edges": [np.abs(filtered(grey, EDGES.T)) for grey in greys],
    }
    return _grid(columns, width=1.6, height=1.6)


def filtered(grey: NDArray[np.floating], kernel: NDArray[np.floating]) -> NDArray[np.floating]:
    """Slide a kernel ``(h, w)`` over an image ``(H, W)``: ``(H - h + 1, W - w + 1)`` sums."""
    windows = np.lib.stride_tricks.sliding_window_view(grey, kernel.shape)
    return np.asarray(np.einsum("ijkl,kl->ij", windows, kernel))


def feature_maps(images: Images, maps: NDArray[np.float32]) -> Figure:
    """Draw each image beside its feature maps, of ``(N, h, w, channels)``, that vary most."""
    chosen = np.argsort(-maps.std(axis=(0, 1, 2)), kind="stable")[:MAPS]
    columns: dict[str, Collection[NDArray[Any]]] = {"image": images}
    columns |= {f"map {channel}": maps[..., channel] for channel in chosen}
    return _grid(columns, width=1.2, height=1.3)


def _grid(
    columns: Mapping[str, Collection[NDArray[Any]]], *, width: float, height: float
) -> Figure:
    """Draw named columns of pictures, in cells of that size in inches."""
    rows = len(next(iter(columns.values())))
    figure = Figure(figsize=(width * len(columns), height * rows), layout="constrained")
    cells = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, pictures) in zip(cells.T, columns.items(), strict=True):
        column[0].set_title(name, fontsize=8)
        for axes, pixels in zip(column, pictures, strict=True):
            _show(axes, pixels)
    return figure


def _show(axes: Axes, pixels: NDArray[Any]) -> None:
    """Show uint8 pixels as they are; scale other numbers from their lowest, black, to white."""
    if pixels.dtype == np.uint8:
        axes.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(pixels, cmap="gray")
    axes.set_axis_off()
