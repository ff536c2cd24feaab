"""The human half of a published version: the model card and its pictures.

Knows matplotlib and Markdown; computes nothing that is not shown, and knows nothing of Keras,
ONNX or publishing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.calibrate import BINS, reliability
from training.datasets import Dataset
from training.splits import Split

MISTAKES = 16
Answers = NDArray[np.float32]


def write(
    folder: Path,
    properties: Mapping[str, Any],
    facts: Mapping[str, str],
    data: Dataset,
    history: Mapping[str, list[float]],
    answers: Answers,
) -> None:
    """Write ``README.md`` and ``report/*.png`` into a version's folder; ``answers`` are
    probabilities ``(N, K)`` on the test split."""
    pictures = folder / "report"
    pictures.mkdir()
    for name, figure in {
        "learning-curves": learning_curves(history),
        "confusion-matrix": confusion_matrix(
            confusion(answers, data.test, len(data.labels)), data.labels
        ),
        "reliability": reliability_diagram(answers, data.test),
        "mistakes": mistakes(answers, data.test, data.labels),
    }.items():
        figure.savefig(pictures / f"{name}.png", dpi=90, metadata={"Software": None})
    (folder / "README.md").write_text(card(properties, facts, data, answers), encoding="utf-8")


def confusion(answers: Answers, split: Split, classes: int) -> NDArray[np.int64]:
    """Counts ``(K, K)``: row the true class, column the answer."""
    pairs = split.labels * classes + answers.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def card(
    properties: Mapping[str, Any], facts: Mapping[str, str], data: Dataset, answers: Answers
) -> str:
    """The model card, as Markdown."""
    metrics, source, split = (
        properties["metrics"],
        properties["source"],
        properties["dataset"]["split"],
    )
    counts = confusion(answers, data.test, len(data.labels))
    facts = {
        "Recipe": f"`{properties['recipe']}`",
        "Command": f"`{source['command']}`",
        "Data": f"{data.name}: {split['train']:,} training, {split['validation']:,} validation, "
        f"{split['test']:,} test images",
        **facts,
        "Trained at": properties["trained_at"],
        "Source": f"`{source['revision']}`",
        "Versions": ", ".join(f"{name} {number}" for name, number in source["versions"].items()),
    }
    return "\n".join(
        [
            f"# {properties['title']}: `{properties['name']}` version {properties['version']}",
            "",
            f"**{metrics['accuracy']:.2%}** of {metrics['images']:,} test images right "
            f"({metrics['correct']:,}), calibration error {metrics['calibration_error']:.2%}: "
            "of this exported file, under onnxruntime.",
            "",
            "| | |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in facts.items()),
            "",
            "| Class | Test images | Precision | Recall |",
            "| --- | ---: | ---: | ---: |",
            *_class_rows(counts, data.labels),
            "",
            *(f"![{name}](report/{name}.png)" for name in ("learning-curves", "confusion-matrix")),
            *(f"![{name}](report/{name}.png)" for name in ("reliability", "mistakes")),
            "",
            "## About the data",
            "",
            *(f"- {note}" for note in data.notes or ("Nothing was left out.",)),
            "",
        ]
    )


def _class_rows(counts: NDArray[np.int64], labels: tuple[str, ...]) -> list[str]:
    right = counts.diagonal()
    precision = right / np.maximum(counts.sum(axis=0), 1)
    recall = right / np.maximum(counts.sum(axis=1), 1)
    rows = zip(labels, counts.sum(axis=1), precision, recall, strict=True)
    return [f"| {label} | {count:,} | {p:.2%} | {r:.2%} |" for label, count, p, r in rows]


def learning_curves(history: Mapping[str, list[float]]) -> Figure:
    """Loss and accuracy by epoch, for training and validation."""
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
    """The counts, coloured by the share of the true class."""
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


def reliability_diagram(answers: Answers, split: Split) -> Figure:
    """Accuracy against confidence, in ten bins; on the diagonal confidence means what it says."""
    count, mean, accuracy = reliability(answers, split.labels)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    filled = count > 0
    axes.bar(
        (np.arange(BINS) + 0.5) / BINS, accuracy, width=0.9 / BINS, alpha=0.4, label="accuracy"
    )
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--")
    axes.plot(mean[filled], accuracy[filled], "o", label="mean confidence")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    return figure


def mistakes(answers: Answers, split: Split, labels: tuple[str, ...]) -> Figure:
    """The wrong answers that were given with most confidence."""
    wrong = np.flatnonzero(answers.argmax(axis=1) != split.labels)
    worst = wrong[np.argsort(-answers[wrong].max(axis=1), kind="stable")][:MISTAKES]
    figure = Figure(figsize=(8, 8.6), layout="constrained")
    cells = figure.subplots(4, MISTAKES // 4).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, index in zip(cells, worst, strict=False):
        axes.imshow(split.images[index].squeeze(), cmap="gray", vmin=0, vmax=255)
        truth, answer = labels[split.labels[index]], labels[answers[index].argmax()]
        axes.set_title(f"{truth}, not {answer}\n({answers[index].max():.1%})", fontsize=9)
    return figure
