"""Publish a finished run: calibrate, export, judge, describe, and only then rename into place.

Knows the order of the steps; each step itself is another module's. The test split is read here,
once, and none of its results influence training.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray

from training.data.datasets import Dataset
from training.data.pixels import encode_png
from training.data.splits import PARTS, Split
from training.errors import BelowGate, RunMismatch
from training.evaluation import calibration, cost, robustness
from training.evaluation.evaluation import Judgement, judge
from training.fitting import checkpoints as runs
from training.fitting import provenance
from training.fitting.checkpoints import State
from training.fitting.signals import SIGTERM
from training.modelling.network import build, feature_maps, predict, served
from training.modelling.recipe import Recipe
from training.publishing import model_card, quantize, to_onnx, typicality, versions

log = logging.getLogger(__name__)

GOLDEN_IMAGES = 10
EXAMPLES = 4  # golden images shown with their edges and feature maps
BELOW_GATE = "below-gate"  # in the run folder: what would have been published
EXPORTERS = (*provenance.LIBRARIES, "tf2onnx", "onnx", "onnxruntime")


def publish(
    recipe: Recipe, data: Dataset, *, run: Path, models: Path, corrupted: bool = False
) -> Path:
    """Publish the best weights of a locked run as the next version of its model; return the folder.

    ``corrupted`` adds the accuracy on corrupted test images, which takes minutes.

    Raises:
        BelowGate: if the file's test accuracy is below ``min_accuracy``; nothing is published, and
            the run folder keeps the file and its report.
        ExportMismatch: if the file and the network answer differently.
        PublishFailed: if the folder cannot be written.
        Preempted: if a signal was received before the last rename; nothing is published.
        RunFailed: if the run cannot be read.
        RunMismatch: if the recipe or the data have changed since the run began.
        UsageError: if the run is not finished.
    """
    with SIGTERM.released_at_end():  # a library may replace its exception
        state = _finished(recipe, data, run)
        network = build(recipe, len(data.labels))
        runs.load_best(network, run)
        logits, held_out = served(recipe, network), data.validation
        temperature = calibration.temperature(predict(logits, held_out.images), held_out.labels)
        model = to_onnx.with_probabilities(logits, temperature)
    with (
        SIGTERM.released_at_end(),
        versions.turn(models, recipe.model) as version,
        versions.publication(models, recipe.model, version) as folder,
    ):
        file, graph = folder / "model.onnx", to_onnx.convert(model)
        SIGTERM.release()  # a library may have caught its exception; so after each step
        common = _describe(recipe, data, version, _sources(state, run))
        judgement, properties = _judge(graph, data, file, {**common, "precision": "float32"})
        difference = to_onnx.compare(model, file, data.test.images[: to_onnx.MIN_COMPARED])
        log.info("the exported file: %s; off the network by %.1e", judgement.summary, difference)
        passed = judgement.score.accuracy >= recipe.min_accuracy
        int8_file = folder / "model.int8.onnx"
        int8, words = None, "none: this file is below the gate"
        if passed:
            int8, words = _int8(graph, data, int8_file, common, judgement)
            SIGTERM.release()
        if corrupted and passed:
            results = _corrupted(data, [each for each in (file, int8_file) if each.exists()])
            properties["corrupted"] = results[0]
            words += "".join(f", {each['accuracy']:.2%} corrupted" for each in results[1:])
        answers = [each.answers for each in (judgement, int8) if each]
        golden = _write_golden(folder / "golden", data, answers)
        examples = (golden if len(golden) else data.test.images)[:EXAMPLES]
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
        if not passed:
            raise _below_gate(recipe, judgement, folder, run)
        state.published = versions.digest(file)
        runs.write_state(run, state)  # before the rename: a kill must not publish it twice
        SIGTERM.release()
    return models / recipe.model / str(version)


def _finished(recipe: Recipe, data: Dataset, run: Path) -> State:
    state = runs.finished(run, recipe.name, recipe.fingerprint())
    if state.data != data.content_hash:
        raise RunMismatch(
            f"{run} was trained on data {state.data!r}, not {data.content_hash!r}. Expected: the "
            "--data-dir and --extra of the run, with the same images in them."
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


def _below_gate(recipe: Recipe, judgement: Judgement, folder: Path, run: Path) -> BelowGate:
    """Keep in the run folder what will not be published, and return the error."""
    kept = run / BELOW_GATE
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    return BelowGate(
        f"{recipe.name} got {judgement.score}, below its min_accuracy of "
        f"{recipe.min_accuracy:.2%}. Nothing was published; {kept} has the file and its report."
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


def _sources(state: State, run: Path) -> dict[str, Any]:
    """Return when and by which code the run was trained, and that of this process, which exports
    it; without revision and versions if the run began before they were recorded."""
    unknown = {"at": "", "revision": "", "code": "", "versions": {}}
    began, *resumed = state.sources or [unknown]
    best = datetime.fromtimestamp(runs.best(run).stat().st_mtime, UTC)
    return {
        "trained_at": state.ended or best.isoformat(timespec="seconds"),
        "source": {
            **began,
            "command": state.command,
            **({"resumed": resumed} if resumed else {}),
            "exported": provenance.source("tensorflow", EXPORTERS),
        },
    }


def _describe(
    recipe: Recipe, data: Dataset, version: int, sources: Mapping[str, Any]
) -> dict[str, Any]:
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
        **sources,
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
