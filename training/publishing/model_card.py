"""The part of a published version for people: the model card and its pictures.

Knows Markdown and the list of pictures; computes only what it shows, and knows nothing of Keras,
ONNX or publishing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data.datasets import Dataset
from training.data.splits import Split
from training.evaluation import robustness
from training.evaluation.calibration import calibration_error, sets
from training.evaluation.scoring import Score
from training.publishing import plots
from training.publishing.plots import Answers, Images


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The results of a version that its metadata do not hold."""

    history: Mapping[str, list[float]]  # by epoch
    before: Answers  # probabilities (N, K) on the test split without temperature
    answers: Answers  # those of the exported file
    examples: Images
    maps: NDArray[np.float32] | None  # of the examples; None if the network has no convolution


def write(
    folder: Path,
    properties: Mapping[str, Any],
    facts: Mapping[str, str],
    data: Dataset,
    evidence: Evidence,
) -> None:
    """Write ``README.md`` and ``report/*.png`` into a version's folder."""
    pictures = folder / "report"
    pictures.mkdir()
    drawn = _pictures(data, evidence)
    for name, figure in drawn.items():
        plots.save(figure, pictures / f"{name}.png")
    text = card(properties, facts, data, evidence, pictures=list(drawn))
    (folder / "README.md").write_text(text, encoding="utf-8")


def _pictures(data: Dataset, evidence: Evidence) -> dict[str, Figure]:
    answers, test = evidence.answers, data.test
    drawn = {
        "learning-curves": plots.learning_curves(evidence.history),
        "confusion-matrix": plots.confusion_matrix(
            confusion(answers, test, len(data.labels)), data.labels
        ),
        "reliability": plots.reliability_diagrams(evidence.before, answers, test),
        "mistakes": plots.mistakes(answers, test, data.labels),
        "edges": plots.edges(evidence.examples),
    }
    if evidence.maps is not None:
        drawn["feature-maps"] = plots.feature_maps(evidence.examples, evidence.maps)
    return drawn


def confusion(answers: Answers, split: Split, classes: int) -> NDArray[np.int64]:
    """Count the answers ``(K, K)``: row the true class, column the answer."""
    pairs = split.labels * classes + answers.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def card(
    properties: Mapping[str, Any],
    facts: Mapping[str, str],
    data: Dataset,
    evidence: Evidence,
    *,
    pictures: Sequence[str],
) -> str:
    """Return the model card, as Markdown."""
    metrics = properties["metrics"]
    low, high = Score(metrics["correct"], metrics["images"]).interval
    before = calibration_error(evidence.before, data.test.labels)
    counts = confusion(evidence.answers, data.test, len(data.labels))
    return "\n".join(
        [
            f"# {properties['title']}: `{properties['name']}` version {properties['version']}",
            "",
            f"**{metrics['accuracy']:.2%}** of {metrics['images']:,} test images correct "
            f"({metrics['correct']:,}; 95% confidence: {low:.2%} to {high:.2%}), calibration error "
            f"{metrics['calibration_error']:.2%}: of this exported file, under onnxruntime.",
            "",
            "| | |",
            "| --- | --- |",
            *_fact_rows(properties, facts, data, before),
            "",
            "| Class | Test images | Precision | Recall | F1 |",
            "| --- | ---: | ---: | ---: | ---: |",
            *_class_rows(counts, data.labels),
            "",
            "| Requested coverage | On test images | Labels in a set | Sets of one | Empty sets |",
            "| ---: | ---: | ---: | ---: | ---: |",
            *_set_rows(properties["conformal"], evidence.answers, data.test),
            "",
            *(f"![{name}](report/{name}.png)" for name in pictures),
            "",
            *_corrupted(properties.get("corrupted")),
            "## About the data",
            "",
            *(f"- {note}" for note in data.notes or ("Nothing was left out.",)),
            "",
        ]
    )


def _fact_rows(
    properties: Mapping[str, Any], facts: Mapping[str, str], data: Dataset, before: float
) -> list[str]:
    source, split = properties["source"], properties["dataset"]["split"]
    extra = f" ({data.extra:,} of them extra)" if data.extra else ""
    rows = {
        "Recipe": f"`{properties['recipe']}`",
        "Command": f"`{source['command']}`",
        "Data": f"{data.name}: {split['train']:,} training{extra}, {split['validation']:,} "
        f"validation, {split['test']:,} test images",
        **facts,
        "Calibration error": f"{before:.2%} before temperature scaling, "
        f"{properties['metrics']['calibration_error']:.2%} after",
        "Trained at": properties["trained_at"],
        "Source": f"`{source['revision']}`",
        "Versions": ", ".join(f"{name} {number}" for name, number in source["versions"].items()),
    }
    return [f"| {name} | {value} |" for name, value in rows.items()]


def _corrupted(held: Mapping[str, Any] | None) -> list[str]:
    if held is None:
        return []
    return ["## On corrupted images", "", robustness.summary(held), "", *robustness.table(held), ""]


def _class_rows(counts: NDArray[np.int64], labels: tuple[str, ...]) -> list[str]:
    right, true, answered = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    precision, recall = right / np.maximum(answered, 1), right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + answered, 1)
    rows = zip(labels, true, precision, recall, f1, strict=True)
    return [f"| {label} | {n:,} | {p:.2%} | {r:.2%} | {f:.2%} |" for label, n, p, r, f in rows]


def _set_rows(conformal: Mapping[str, float], answers: Answers, split: Split) -> list[str]:
    judged = ((float(key), sets(answers, split.labels, conformal[key])) for key in conformal)
    return [
        f"| {requested:.0%} | {each.coverage:.2%} | {each.size:.2f} | {each.single:.2%} "
        f"| {each.empty:.2%} |"
        for requested, each in judged
    ]
