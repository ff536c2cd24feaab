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
    before = calibration_error(evidence.before, data.test.labels)
    return "\n".join(
        [
            *heading(properties),
            "",
            *fact_table(_facts(properties, facts, data, before)),
            "",
            *class_table(evidence.answers, data.test, data.labels),
            "",
            *set_table(properties["conformal"], evidence.answers, data.test),
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


def heading(properties: Mapping[str, Any]) -> list[str]:
    """Return the title and the sentence of the results, from a file's metadata."""
    metrics = properties["metrics"]
    low, high = Score(metrics["correct"], metrics["images"]).interval
    return [
        f"# {properties['title']}: `{properties['name']}` version {properties['version']}",
        "",
        f"**{metrics['accuracy']:.2%}** of {metrics['images']:,} test images correct "
        f"({metrics['correct']:,}; 95% confidence: {low:.2%} to {high:.2%}), calibration error "
        f"{metrics['calibration_error']:.2%}: of this exported file, under onnxruntime.",
    ]


def fact_table(facts: Mapping[str, str]) -> list[str]:
    """Return facts as lines of a Markdown table."""
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())]


def _facts(
    properties: Mapping[str, Any], facts: Mapping[str, str], data: Dataset, before: float
) -> dict[str, str]:
    source, split = properties["source"], properties["dataset"]["split"]
    extra = f" ({data.extra:,} of them extra)" if data.extra else ""
    return {
        "Recipe": f"`{properties['recipe']}`",
        "Command": f"`{source['command']}`",
        "Data": f"{data.name}: {split['train']:,} training{extra}, {split['validation']:,} "
        f"validation, {split['test']:,} test images",
        **facts,
        "Calibration error": calibration(before, properties["metrics"]["calibration_error"]),
        "Trained": f"{_span(source['at'], properties['trained_at'])}, {_code(source)}",
        **{f"Resumed {each['at']}": _code(each) for each in source.get("resumed", ())},
        "Exported": f"{source['exported']['at']}, {_code(source['exported'])}",
    }


def _span(began: str, ended: str) -> str:
    return f"{began} to {ended}" if began else f"until {ended}"


def _code(source: Mapping[str, Any]) -> str:
    """Return the code of training or export in words."""
    if not source["code"]:
        return "by code that was not recorded"
    revision = f"`{source['revision']}`" if source["revision"] else "unknown"
    libraries = ", ".join(f"{name} {number}" for name, number in source["versions"].items())
    return f"revision {revision}, code `{source['code']}`, {libraries}"


def _corrupted(held: Mapping[str, Any] | None) -> list[str]:
    if held is None:
        return []
    return ["## On corrupted images", "", robustness.summary(held), "", *robustness.table(held), ""]


def calibration(before: float, after: float) -> str:
    """Return the calibration errors in words."""
    return f"{before:.2%} before temperature scaling, {after:.2%} after"


def class_table(answers: Answers, split: Split, labels: Sequence[str]) -> list[str]:
    """Return precision, recall and F1 of each class as lines of a Markdown table."""
    counts = confusion(answers, split, len(labels))
    right, true, answered = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    precision, recall = right / np.maximum(answered, 1), right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + answered, 1)
    rows = zip(labels, true, precision, recall, f1, strict=True)
    return [
        "| Class | Test images | Precision | Recall | F1 |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(f"| {label} | {n:,} | {p:.2%} | {r:.2%} | {f:.2%} |" for label, n, p, r, f in rows),
    ]


def set_table(conformal: Mapping[str, float], answers: Answers, split: Split) -> list[str]:
    """Return the statistics of the prediction sets as lines of a Markdown table."""
    judged = ((float(key), sets(answers, split.labels, conformal[key])) for key in conformal)
    return [
        "| Requested coverage | On test images | Labels in a set | Sets of one | Empty sets |",
        "| ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {requested:.0%} | {each.coverage:.2%} | {each.size:.2f} | {each.single:.2%} "
            f"| {each.empty:.2%} |"
            for requested, each in judged
        ),
    ]
