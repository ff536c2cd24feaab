"""From a finished run to a published version: calibrate, export, judge the file, describe it, and
only then rename it into place.

Knows the order of the steps; each step itself is another module's. The test split is read here,
once, and nothing that it says goes back into training.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from training.data.datasets import Dataset
from training.data.pixels import encode_png
from training.data.splits import Split
from training.errors import BelowGate, RunMismatch, UsageError
from training.evaluation import calibration, cost
from training.evaluation.evaluation import Judgement, judge
from training.fitting import checkpoints as runs
from training.fitting.checkpoints import State
from training.fitting.signals import SIGTERM
from training.modelling.network import build, feature_maps, served
from training.modelling.recipe import Recipe
from training.publishing import model_card, quantize, to_onnx

log = logging.getLogger(__name__)

GOLDEN_IMAGES = 10
EXAMPLES = 4  # of them are shown with their edges and feature maps
PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")


def publish(recipe: Recipe, data: Dataset, *, run: Path, models: Path) -> Path:
    """Publish a run's best weights as the next version of its model; returns the new folder.

    Raises:
        BelowGate: the file's test accuracy is under ``min_accuracy``; nothing is published.
        ExportMismatch: the file does not answer as the network does.
        PublishFailed: the folder cannot be written.
        RunFailed: the run cannot be read, or a process is at work on it.
        RunMismatch: the recipe or the data have changed since the run began.
        UsageError: the run has not come to its end.
    """
    with runs.alone(run):
        return _publish(recipe, data, run, models)


def _publish(recipe: Recipe, data: Dataset, run: Path, models: Path) -> Path:
    state = runs.read_state(run)
    if state.page != recipe.fingerprint():
        raise RunMismatch(f"{run} was trained when {recipe.name} said something else. Train anew.")
    if state.data != data.content_hash:
        raise RunMismatch(
            f"{run} was trained on data {state.data!r}, not {data.content_hash!r}. Expected: the "
            "--data-dir and --extra of the run, with the same images in them."
        )
    if state.epoch < state.epochs:
        raise UsageError(
            f"{run} has done {state.epoch} of {state.epochs} epochs. Expected: a run that has come "
            "to its end; `train` goes on with it."
        )
    network = build(recipe, len(data.labels))
    runs.load_best(network, run)
    whole = served(recipe, network)
    temperature = calibration.temperature(_logits(whole, data.validation), data.validation.labels)
    model = to_onnx.with_probabilities(whole, temperature)
    with (
        to_onnx.turn(models, recipe.model) as version,
        to_onnx.publication(models, recipe.model, version) as folder,
    ):
        graph = to_onnx.to_onnx(model, {})
        judgement = _judge(recipe, model, graph, data, folder / "model.onnx")
        common = _describe(recipe, data, version, state.command)
        properties = _save(graph, folder / "model.onnx", common, judgement, precision="float32")
        to_onnx.compare(model, folder / "model.onnx", data.test.images[: to_onnx.MIN_COMPARED])
        int8, words = _int8(graph, data, folder / "model.int8.onnx", common, judgement)
        answers = [each.answers for each in (judgement, int8) if each]
        golden = list(islice(_surest(data.test, answers), GOLDEN_IMAGES))
        _write_golden(folder / "golden", data, golden)
        examples = data.test.images[golden[:EXAMPLES]]
        evidence = model_card.Evidence(
            history=state.history,
            before=calibration.softmax(_logits(whole, data.test)),
            answers=judgement.answers,
            examples=examples,
            maps=feature_maps(network, examples),
        )
        facts = _facts(recipe, state, network, temperature)
        facts |= _costs(graph, folder / "model.onnx", judgement) | {"int8": words}
        model_card.write(folder, properties, facts, data, evidence)
        state.published = runs.digest(folder / "model.onnx")
        SIGTERM.hold()  # the run must know of a version that is there
    published = models / recipe.model / str(version)
    runs.write_state(run, state)
    SIGTERM.release()
    return published


def _logits(network: keras.Model, split: Split) -> NDArray[np.float32]:
    return np.asarray(network.predict(split.images, batch_size=256, verbose=0), np.float32)


def _judge(
    recipe: Recipe, model: keras.Model, graph: onnx.ModelProto, data: Dataset, file: Path
) -> Judgement:
    onnx.save(graph, file)
    difference = to_onnx.compare(model, file, data.test.images[: to_onnx.MIN_COMPARED])
    judgement = judge(file, data)
    log.info("the exported file: %s; off the network by %.1e", judgement.told, difference)
    if judgement.score.accuracy < recipe.min_accuracy:
        raise BelowGate(
            f"{recipe.name} got {judgement.score}, below its min_accuracy of "
            f"{recipe.min_accuracy:.2%}. Nothing was published."
        )
    return judgement


def _int8(
    graph: onnx.ModelProto, data: Dataset, file: Path, common: Mapping[str, Any], float32: Judgement
) -> tuple[Judgement | None, str]:
    """Put the int8 file beside the float32 one where it is worth it: what it reached, if so, and
    what the card says."""
    small = quantize.quantize(graph, data.train.images)
    onnx.save(small, file)
    judgement = judge(file, data)
    if reason := quantize.refusal(float32, judgement):
        file.unlink()
        log.info("no int8 file: %s", reason)
        return None, f"none: {reason}"
    _save(small, file, common, judgement, precision="int8")
    log.info("the int8 file: %s", judgement.told)
    return judgement, f"`{file.name}`: {judgement.told}, {_size(file)}"


def _save(
    graph: onnx.ModelProto,
    file: Path,
    common: Mapping[str, Any],
    judgement: Judgement,
    *,
    precision: str,
) -> dict[str, Any]:
    """Write a file with its metadata; these."""
    properties = {**common, "precision": precision, **judgement.metadata(common["labels"])}
    onnx.helper.set_model_props(graph, to_onnx.properties(properties))
    onnx.save(graph, file)
    return properties


def _describe(recipe: Recipe, data: Dataset, version: int, command: str) -> dict[str, Any]:
    """The metadata of ``models/README.md``, but for what a file reached."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
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
            "split": {name: len(split.labels) for name, split in splits.items()},
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


def _costs(graph: onnx.ModelProto, file: Path, judgement: Judgement) -> dict[str, str]:
    return {
        "Cost of an image": f"{cost.macs(graph) / 1e6:.1f} million multiply-accumulates, "
        f"{judgement.milliseconds:.2f} ms at one thread of the machine that published it",
        "File": _size(file),
    }


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f} MB"


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


def _write_golden(folder: Path, data: Dataset, chosen: Sequence[int]) -> None:
    """Save those test images as `<label>-<n>.png`."""
    folder.mkdir()
    for n, index in enumerate(chosen):
        label = data.labels[data.test.labels[index]]
        (folder / f"{label}-{n}.png").write_bytes(encode_png(data.test.images[index]))


def _surest(test: Split, answers: Sequence[NDArray[np.float32]]) -> Iterator[int]:
    """What all files answer right, the classes taking turns, each with its surest first: no other
    processor's rounding may turn one of them."""
    right = np.all([each.argmax(axis=1) == test.labels for each in answers], axis=0).nonzero()[0]
    sure = np.min([each[right].max(axis=1) for each in answers], axis=0)
    right = right[np.argsort(-sure, kind="stable")]
    labels = test.labels[right]
    turn = np.array([np.count_nonzero(labels[:n] == label) for n, label in enumerate(labels)])
    yield from (int(right[place]) for place in np.lexsort((labels, turn)))
