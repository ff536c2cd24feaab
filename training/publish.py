"""From a finished run to a published version: calibrate, export, judge the file, describe it, and
only then rename it into place.

Knows the order of the steps; each step itself is another module's. The test split is read here,
once, and nothing that it says goes back into training.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from training import calibrate, export, report
from training.datasets import Dataset
from training.errors import BelowGate, RunMismatch
from training.evaluate import Score, probabilities, score
from training.network import build, served
from training.pixels import encode_png
from training.recipe import Recipe
from training.run import State, best, read_state, write_state
from training.splits import Split

log = logging.getLogger(__name__)

GOLDEN_IMAGES = 10
PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class Judgement:
    """What the exported file reached on the test split."""

    score: Score
    calibration_error: float
    answers: NDArray[np.float32]  # probabilities (N, K), in the order of the test split


def publish(recipe: Recipe, data: Dataset, *, run: Path, models: Path) -> Path:
    """Publish a run's best weights as the next version of its model; returns the new folder.

    Raises:
        BelowGate: the file's test accuracy is under ``min_accuracy``; nothing is published.
        ExportMismatch: the file does not answer as the network does.
        PublishFailed: the folder cannot be written.
        RunMismatch: the recipe has changed since the run began.
    """
    state = read_state(run)
    if state.page != recipe.fingerprint():
        raise RunMismatch(f"{run} was trained when {recipe.name} said something else. Train anew.")
    network = build(recipe, len(data.labels))
    network.load_weights(best(run))
    whole = served(recipe, network)
    temperature = calibrate.temperature(_logits(whole, data.validation), data.validation.labels)
    model = export.with_probabilities(whole, temperature)
    version = export.next_version(models, recipe.model)
    with export.publication(models, recipe.model, version) as folder:
        graph = export.to_onnx(model, {})
        judgement = _judge(recipe, model, graph, data.test, folder / "model.onnx")
        properties = _describe(recipe, data, version, judgement, state.command)
        onnx.helper.set_model_props(graph, export.properties(properties))
        onnx.save(graph, folder / "model.onnx")
        export.compare(model, folder / "model.onnx", data.test.images[: export.MIN_COMPARED])
        _write_golden(folder / "golden", data, judgement.answers)
        facts = _facts(recipe, state, network, temperature)
        report.write(folder, properties, facts, data, state.history, judgement.answers)
    published = models / recipe.model / str(version)
    state.published = str(published)
    write_state(run, state)
    return published


def _logits(network: keras.Model, split: Split) -> NDArray[np.float32]:
    return np.asarray(network.predict(split.images, batch_size=256, verbose=0), np.float32)


def _judge(
    recipe: Recipe, model: keras.Model, graph: onnx.ModelProto, test: Split, file: Path
) -> Judgement:
    onnx.save(graph, file)
    difference = export.compare(model, file, test.images[: export.MIN_COMPARED])
    answers = probabilities(file, test.images)
    result = score(answers, test.labels)
    log.info("the exported file gets %s; it differs from the network by %.1e", result, difference)
    if result.accuracy < recipe.min_accuracy:
        raise BelowGate(
            f"{recipe.name} got {result}, below its min_accuracy of {recipe.min_accuracy:.2%}. "
            "Nothing was published."
        )
    return Judgement(result, calibrate.calibration_error(answers, test.labels), answers)


def _describe(
    recipe: Recipe, data: Dataset, version: int, judgement: Judgement, command: str
) -> dict[str, Any]:
    """The metadata of ``models/README.md``."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "schema": export.SCHEMA,
        "name": recipe.model,
        "version": str(version),
        "labels": list(data.labels),
        "fit": recipe.fit,
        "title": recipe.title,
        "recipe": recipe.name,
        "metrics": {
            "accuracy": round(judgement.score.accuracy, 6),
            "correct": judgement.score.correct,
            "images": judgement.score.images,
            "calibration_error": round(judgement.calibration_error, 6),
        },
        "baseline": calibrate.baseline(judgement.answers, data.labels),
        "dataset": {
            "name": data.name,
            "hash": data.content_hash,
            "split": {name: len(split.labels) for name, split in splits.items()},
        },
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {
            "revision": _revision(),
            "command": command,
            "versions": {name: package_version(name) for name in PACKAGES}
            | {"python": ".".join(map(str, sys.version_info[:3]))},
        },
    }


def _facts(
    recipe: Recipe, state: State, network: keras.Model, temperature: float
) -> dict[str, str]:
    """What the card tells besides the metadata."""
    return {
        "Weights": f"{network.count_params():,}",
        "Epochs": f"{state.epochs}, the best on validation data was number {state.best_epoch} "
        f"({state.best_accuracy:.2%})",
        "Batch": f"{recipe.batch_size}",
        "Seed": f"{state.seed}",
        "Precision": state.precision,
        "Training time": f"{state.seconds / 60:.0f} minutes",
        "Temperature": f"{temperature:.3f}",
    }


def _revision() -> str:
    """The git revision of the code: ``SOURCE_REVISION`` where an image was built from it, else the
    working tree's, `-dirty` where it differs; empty where there is neither."""
    if given := os.environ.get("SOURCE_REVISION"):
        return given
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.decode().strip()


def _write_golden(folder: Path, data: Dataset, answers: NDArray[np.float32]) -> None:
    """Save test images that the file answers right, as `<label>-<n>.png`."""
    folder.mkdir()
    for n, index in zip(range(GOLDEN_IMAGES), _surest(data.test, answers), strict=False):
        label = data.labels[data.test.labels[index]]
        (folder / f"{label}-{n}.png").write_bytes(encode_png(data.test.images[index]))


def _surest(test: Split, answers: NDArray[np.float32]) -> Iterator[int]:
    """Right answers, the classes taking turns, each with its surest first: no other processor's
    rounding may turn one of them."""
    right = np.flatnonzero(answers.argmax(axis=1) == test.labels)
    right = right[np.argsort(-answers[right].max(axis=1), kind="stable")]
    labels = test.labels[right]
    turn = np.array([np.count_nonzero(labels[:n] == label) for n, label in enumerate(labels)])
    yield from (int(right[place]) for place in np.lexsort((labels, turn)))
