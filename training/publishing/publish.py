"""Publish a finished run: calibrate, export, judge, describe, and only then rename into place.

Knows the order of the steps; each step itself is another module's. The test split is read here,
once, and none of its results influence training.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from training.data.datasets import Dataset
from training.data.pixels import encode_png
from training.data.splits import PARTS, Split
from training.errors import BelowGate, RunMismatch, UsageError
from training.evaluation import calibration, cost, robustness
from training.evaluation.evaluation import Judgement, judge
from training.fitting import checkpoints as runs
from training.fitting.checkpoints import State
from training.fitting.signals import SIGTERM
from training.modelling.network import build, feature_maps, predict, served
from training.modelling.recipe import Recipe
from training.publishing import model_card, quantize, to_onnx, typicality, versions

log = logging.getLogger(__name__)

GOLDEN_IMAGES = 10
EXAMPLES = 4  # golden images shown with their edges and feature maps
PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")


def publish(
    recipe: Recipe, data: Dataset, *, run: Path, models: Path, corrupted: bool = False
) -> Path:
    """Publish the best weights of a locked run as the next version of its model; return the folder.

    ``corrupted`` adds the accuracy on corrupted test images, which takes minutes.

    Raises:
        BelowGate: if the file's test accuracy is below ``min_accuracy``; nothing is published.
        ExportMismatch: if the file and the network answer differently.
        PublishFailed: if the folder cannot be written.
        RunFailed: if the run cannot be read.
        RunMismatch: if the recipe or the data have changed since the run began.
        UsageError: if the run is not finished.
    """
    state = _finished(recipe, data, run)
    network = build(recipe, len(data.labels))
    runs.load_best(network, run)
    logits, held_out = served(recipe, network), data.validation
    temperature = calibration.temperature(predict(logits, held_out.images), held_out.labels)
    model = to_onnx.with_probabilities(logits, temperature)
    with (
        versions.turn(models, recipe.model) as version,
        versions.publication(models, recipe.model, version) as folder,
    ):
        file, graph = folder / "model.onnx", to_onnx.convert(model)
        common = _describe(recipe, data, version, state.command)
        judgement, properties = _judge(graph, data, file, {**common, "precision": "float32"})
        difference = to_onnx.compare(model, file, data.test.images[: to_onnx.MIN_COMPARED])
        log.info("the exported file: %s; off the network by %.1e", judgement.summary, difference)
        _check_gate(recipe, judgement)
        int8_file = folder / "model.int8.onnx"
        int8, words = _int8(graph, data, int8_file, common, judgement)
        if corrupted:
            results = _corrupted(data, [each for each in (file, int8_file) if each.exists()])
            properties["corrupted"] = results[0]
            words += "".join(f", {each['accuracy']:.2%} corrupted" for each in results[1:])
        answers = [each.answers for each in (judgement, int8) if each]
        examples = _write_golden(folder / "golden", data, answers)[:EXAMPLES]
        evidence = model_card.Evidence(
            history=state.history,
            before=calibration.softmax(predict(logits, data.test.images)),
            answers=judgement.answers,
            examples=examples,
            maps=feature_maps(network, examples),
        )
        facts = _training_facts(recipe, network, state) | {
            "Temperature": f"{temperature:.3f}",
            "Cost of an image": _cost(graph, judgement),
            "File": _size(file),
            "int8": words,
            "Typicality": _typical(judgement),
        }
        model_card.write(folder, properties, facts, data, evidence)
        state.published = versions.digest(file)
        SIGTERM.hold()  # a version on disk must be in the state of its run
    runs.write_state(run, state)
    SIGTERM.release()
    return models / recipe.model / str(version)


def _finished(recipe: Recipe, data: Dataset, run: Path) -> State:
    state = runs.read_state(run)
    if state.page != recipe.fingerprint():
        raise RunMismatch(
            f"The recipe {recipe.name} has changed since {run} began. Delete that folder and train "
            "again."
        )
    if state.data != data.content_hash:
        raise RunMismatch(
            f"{run} was trained on data {state.data!r}, not {data.content_hash!r}. Expected: the "
            "--data-dir and --extra of the run, with the same images in them."
        )
    if state.epoch < state.epochs:
        raise UsageError(
            f"{run} has done {state.epoch} of {state.epochs} epochs. Expected: a finished run; "
            "`train` continues it."
        )
    return state


def _judge(
    graph: onnx.ModelProto, data: Dataset, file: Path, metadata: Mapping[str, Any]
) -> tuple[Judgement, dict[str, Any]]:
    """Write a file with its typicality, judge it, and write it again with its metadata; return
    results and metadata."""
    whole = typicality.fit(graph, data.validation.images, file)
    onnx.save(whole, file)
    judgement = judge(file, data)
    properties = {**metadata, **judgement.metadata(data.labels)}
    to_onnx.save(whole, file, properties)
    return judgement, properties


def _check_gate(recipe: Recipe, judgement: Judgement) -> None:
    if judgement.score.accuracy < recipe.min_accuracy:
        raise BelowGate(
            f"{recipe.name} got {judgement.score}, below its min_accuracy of "
            f"{recipe.min_accuracy:.2%}. Nothing was published."
        )


def _int8(
    graph: onnx.ModelProto, data: Dataset, file: Path, common: Mapping[str, Any], float32: Judgement
) -> tuple[Judgement | None, str]:
    """Add the int8 file if it is worth it; return its results, if so, and the words of the card."""
    small = quantize.quantize(graph, data.train.images)
    judgement, _ = _judge(small, data, file, {**common, "precision": "int8"})
    if reason := quantize.refusal(float32, judgement):
        file.unlink()
        log.info("no int8 file: %s", reason)
        return None, f"none: {reason}"
    log.info("the int8 file: %s", judgement.summary)
    return judgement, f"`{file.name}`: {judgement.summary}, {_size(file)}"


def _corrupted(data: Dataset, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Add the accuracy on corrupted test images to the metadata of each file, and return it."""
    judges = [robustness.by_file(file) for file in files]
    results = robustness.measure(judges, data.name, data.test)
    for file, result in zip(files, results, strict=True):
        to_onnx.add_metadata(file, "corrupted", result)
    return results


def _describe(recipe: Recipe, data: Dataset, version: int, command: str) -> dict[str, Any]:
    """Return the metadata of ``models/README.md`` except for precision and results."""
    return {
        "schema": to_onnx.SCHEMA,
        "name": recipe.model,
        "version": str(version),
        "labels": list(data.labels),
        "fit": recipe.fit,
        "title": recipe.title,
        "recipe": recipe.name,
        "dataset": {
            "name": data.name,
            "hash": data.content_hash,
            "split": {part: len(getattr(data, part).labels) for part in PARTS},
            **({"extra": data.extra} if data.extra else {}),
        },
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {
            "revision": _revision(),
            "command": command,
            "versions": {name: package_version(name) for name in PACKAGES}
            | {"python": ".".join(map(str, sys.version_info[:3]))},
        },
    }


def _training_facts(recipe: Recipe, network: keras.Model, state: State) -> dict[str, str]:
    """Return the rows of the card that describe the training."""
    return {
        "Weights": f"{network.count_params():,}",
        "Epochs": f"{state.epochs}, the best on validation data was number {state.best_epoch} "
        f"({state.best_accuracy:.2%})",
        "Batch": f"{recipe.batch_size}",
        "Seed": f"{state.seed}",
        "Precision": state.precision,
        "Training time": f"{state.seconds / 60:.0f} minutes",
    }


def _cost(graph: onnx.ModelProto, judgement: Judgement) -> str:
    return (
        f"{cost.macs(graph) / 1e6:.1f} million multiply-accumulates, "
        f"{judgement.milliseconds:.2f} ms at one thread of the machine that published it"
    )


def _typical(judgement: Judgement) -> str:
    found = judgement.typicality
    shares = [f"{np.mean(found < least):.1%} below {least}" for least in (0.01, 0.05)]
    return f"of the test images, {' and '.join(shares)}"


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f} MB"


def _revision() -> str:
    """Return ``SOURCE_REVISION``, which an image is built with, else the git revision of the
    working tree, with `-dirty` if it differs, else an empty string."""
    if given := os.environ.get("SOURCE_REVISION"):
        return given
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.decode().strip()


def _write_golden(
    folder: Path, data: Dataset, answers: Sequence[NDArray[np.float32]]
) -> NDArray[np.uint8]:
    """Write the golden images as ``<label>-<n>.png``, and return them."""
    folder.mkdir()
    golden = _surest(data.test, answers)[:GOLDEN_IMAGES]
    for n, index in enumerate(golden):
        png = encode_png(data.test.images[index])
        (folder / f"{data.labels[data.test.labels[index]]}-{n}.png").write_bytes(png)
    return data.test.images[golden]


def _surest(test: Split, answers: Sequence[NDArray[np.float32]]) -> list[int]:
    """Return the images that all files answer correctly, classes in turn, the surest first: the
    rounding of another processor must not change an answer."""
    right = np.all([each.argmax(axis=1) == test.labels for each in answers], axis=0).nonzero()[0]
    sure = np.min([each[right].max(axis=1) for each in answers], axis=0)
    right = right[np.argsort(-sure, kind="stable")]
    labels = test.labels[right]
    turn = [np.count_nonzero(labels[:n] == label) for n, label in enumerate(labels)]
    return [int(index) for index in right[np.lexsort((labels, turn))]]
