"""Score a published file on its test split, as it is or corrupted, or score a running service.

Knows which options belong together; knows nothing of how an answer is counted.
"""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training import recipes
from training.data.datasets import Upload, load, test_uploads
from training.data.pixels import encode_png
from training.data.sources import SOURCES
from training.errors import UsageError
from training.evaluation import published, robustness, scoring, unfamiliar
from training.evaluation.robustness import Judge


def report(options: argparse.Namespace) -> str:
    """Return the result in words.

    Raises:
        UsageError: if the options contradict each other, or name nothing that exists.
    """
    name, version = published.parse(options.name)
    _check(options, name)
    dataset = recipes.find(name).dataset
    if options.corrupted:
        return _corrupted(options, name, version)
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


def _check(options: argparse.Namespace, name: str) -> None:
    if options.photographed and (options.corrupted or not (options.url and name == "digits")):
        raise UsageError(
            "--photographed is for digits over HTTP. Expected: --url and the model digits."
        )
    if options.unfamiliar and (options.corrupted or options.url):
        raise UsageError("--unfamiliar scores a file, without --corrupted and --url.")
    if options.limit and not options.corrupted:
        raise UsageError("--limit is for --corrupted. Expected: both, or neither.")
    if options.url and not options.url.startswith(("http://", "https://")):
        raise UsageError(f"Expected an address that begins with http://, not {options.url!r}.")


def _corrupted(options: argparse.Namespace, name: str, version: int | None) -> str:
    recipe = recipes.find(name)
    if options.url:
        test = load(recipe.dataset, data_dir=options.data_dir, size=recipe.size).test
        judge = _by_service(options.url, name, version, SOURCES[recipe.dataset].labels)
    else:
        file = published.find(options.name, options.models).file_of(options.precision)
        test = scoring.test_split(file, recipe.dataset, data_dir=options.data_dir)
        judge = robustness.by_file(file)
    held = robustness.measure([judge], recipe.dataset, test, limit=options.limit)[0]
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
