"""Score a published file on its test split, as it is or corrupted, or score a running service.

Knows which options belong together, and which figures of a card a file can reproduce; knows nothing
of how an answer is counted.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training import recipes
from training.data.datasets import Upload, load, test_uploads
from training.data.pixels import encode_png
from training.data.sources import SOURCES
from training.errors import UsageError
from training.evaluation import (
    calibration,
    cost,
    evaluation,
    published,
    robustness,
    scoring,
    unfamiliar,
)
from training.evaluation.robustness import Judge
from training.publishing import model_card


def report(options: argparse.Namespace) -> str:
    """Return the result in words.

    Raises:
        UsageError: if the options contradict each other, or name nothing that exists.
    """
    if (Path(options.name) / published.FILE).is_file():
        held = published.find(options.name, options.models).metadata
        version: int | None = int(held["version"])
        name = str(held["name"])
        dataset = str(held["dataset"]["name"])
    else:
        name, version = published.parse(options.name)
        dataset = recipes.find(name).dataset
    _check(options, name)
    if options.full:
        return _full(options, dataset)
    if options.corrupted:
        return _corrupted(options, name, version, dataset)
    if options.unfamiliar:
        return _unfamiliar(options, dataset)
    if options.url:
        uploads = test_uploads(dataset, data_dir=options.data_dir)
        sent = scoring.photographed(uploads) if options.photographed else uploads
        result = scoring.over_http(options.url, name, sent, version=version)
    else:
        file = published.find(options.name, options.models).file_of(options.precision)
        result = scoring.score(*scoring.on_test(file, dataset, data_dir=options.data_dir))
    return f"{options.name}: {result}"


def _full(options: argparse.Namespace, dataset: str) -> str:
    """Return the figures of a version's card, measured now, of both of its files."""
    version = published.find(options.name, options.models)
    file = version.file_of(options.precision)
    test = scoring.test_split(file, dataset, data_dir=options.data_dir)
    properties = version.metadata_of(file)
    judged = evaluation.on_test(file, test, {})
    labels = tuple(properties["labels"])
    macs = cost.macs(version.graph)
    facts = {"Cost of an image": f"{macs / 1e6:.1f} million multiply-accumulates"}
    for each in version.files:
        other = judged if each == file else evaluation.on_test(each, test, {})
        facts[f"`{each.name}`"] = f"{other.summary}, {each.stat().st_size / 1e6:.1f} MB"
    if temperature := version.fact("Temperature"):
        before = calibration.without_temperature(judged.answers, float(temperature))
        error = calibration.calibration_error(before, test.labels)
        facts["Calibration error"] = model_card.calibration(error, judged.calibration_error)
    return "\n".join(
        [
            *model_card.heading({**properties, **judged.metadata(labels)}),
            "",
            *model_card.fact_table(facts),
            "",
            *model_card.class_table(judged.answers, test, labels),
            "",
            *model_card.set_table(properties.get("conformal", {}), judged.answers, test),
        ]
    )


def _check(options: argparse.Namespace, name: str) -> None:
    if options.photographed and (options.corrupted or not (options.url and name == "digits")):
        raise UsageError(
            "--photographed is for digits over HTTP. Expected: --url and the model digits."
        )
    if options.unfamiliar and (options.corrupted or options.url):
        raise UsageError("--unfamiliar scores a file, without --corrupted and --url.")
    if options.full and (options.corrupted or options.url):
        raise UsageError(
            "--full is for files of a version. Expected: neither --corrupted nor --url."
        )
    if options.limit and not options.corrupted:
        raise UsageError("--limit is for --corrupted. Expected: both, or neither.")
    if options.url and not options.url.startswith(("http://", "https://")):
        raise UsageError(f"Expected an address that begins with http://, not {options.url!r}.")


def _corrupted(options: argparse.Namespace, name: str, version: int | None, dataset: str) -> str:
    if options.url:
        test = load(dataset, data_dir=options.data_dir, size=recipes.find(name).size).test
        judge = _by_service(options.url, name, version, SOURCES[dataset].labels)
    else:
        file = published.find(options.name, options.models).file_of(options.precision)
        test = scoring.test_split(file, dataset, data_dir=options.data_dir)
        judge = robustness.by_file(file)
    held = robustness.measure([judge], dataset, test, limit=options.limit)[0]
    return "\n".join([f"{options.name}: {robustness.summary(held)}", "", *robustness.table(held)])


def _unfamiliar(options: argparse.Namespace, dataset: str) -> str:
    file = published.find(options.name, options.models).file_of(options.precision)
    if not unfamiliar.kinds(dataset):
        raise UsageError(f"The data set {dataset} has no unfamiliar images to score.")
    data = load(dataset, data_dir=options.data_dir, size=scoring.size(file))
    results = unfamiliar.measure(file, data, data_dir=options.data_dir)
    return "\n".join([f"{options.name}: unfamiliar images", "", *unfamiliar.table(results)])


def _by_service(url: str, name: str, version: int | None, labels: Sequence[str]) -> Judge:
    """Return what scores images by a service, to which they are sent as PNG."""

    def uploads(images: NDArray[np.uint8], truth: NDArray[np.int64]) -> Iterator[Upload]:
        for number, (image, index) in enumerate(zip(images, truth, strict=True)):
            yield Upload(f"{number:05d}.png", encode_png(image), "image/png", labels[index])

    return lambda images, truth: scoring.over_http(
        url, name, uploads(images, truth), version=version
    )
