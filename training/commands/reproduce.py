"""Train the networks of the tutorials as they were published and score them by the tutorials' own
metrics.

Knows the order of the steps; what a run leaves behind and the page that compares are
``reproduction_page``. Nothing is published: the network in memory is scored, under float32.

MNIST and CIFAR-10: all published training images are trained on, none held out, so the last epoch
is the result. Pets: as many images of our training and validation splits as the tutorial took.
Test data are read once, after training.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from training.commands import regression, reproduction_page
from training.commands.reproduction_page import Result
from training.data.datasets import Dataset, load
from training.data.splits import Split
from training.errors import UsageError
from training.fitting.checkpoints import load_best
from training.fitting.fit import fit
from training.modelling.network import build, cores, on_gpu
from training.modelling.recipe import Recipe

log = logging.getLogger(__name__)

BATCH = 64  # of inference; at 94×125 a layer of 128 filters takes 0.4 GB of it


def reproduce(
    names: Sequence[str],
    *,
    seeds: Sequence[int],
    runs: Path,
    page: Path,
    data_dir: Path,
    precision: str = "auto",
    command: str = "",
    verbose: int = 1,
) -> None:
    """Train each of the recipes, or all that reproduce something, with each seed, and write what
    they reach onto the page. A finished run is not trained again.

    Raises:
        UsageError: a name that is no recipe from a tutorial.
    """
    entries = [_find(name) for name in names] or reproduction_page.tutorials()
    data = lru_cache(maxsize=1)(lambda name, size: load(name, data_dir=data_dir, size=size))
    reproduction_page.write_page(page)  # what cannot be written is told now, not after hours
    for entry, seed in ((entry, seed) for entry in entries for seed in seeds):
        run = reproduction_page.folder(runs, entry, seed)
        result = reproduction_page.read(run / reproduction_page.FILE, entry, precision=precision)
        if result is None:
            published = as_published(entry, data(entry.dataset, entry.size))
            result = train(
                entry,
                published,
                run=run,
                seed=seed,
                precision=precision,
                command=command,
                verbose=verbose,
            )
        log.info("%s, seed %d: %s", entry.name, seed, reproduction_page.told([result]))
        reproduction_page.note(page, result)


def _find(name: str) -> Recipe:
    known = {entry.name: entry for entry in reproduction_page.tutorials()}
    if name not in known:
        raise UsageError(f"No tutorial's recipe named {name!r}. Known: {', '.join(known)}.")
    return known[name]


def as_published(recipe: Recipe, data: Dataset) -> Dataset:
    """The images that a tutorial trained on: the part that it took, or all, none held out."""
    if recipe.published_split:
        train, validation = recipe.published_split
        parts = _first(data.train, train), _first(data.validation, validation)
    else:
        parts = _joined(data.train, data.validation), _first(data.validation, 0)
    return replace(
        data,
        train=parts[0],
        validation=parts[1],
        content_hash=f"{data.content_hash}, split as published",
    )


def _first(split: Split, count: int) -> Split:
    """The splits are ordered by hashes, so the first are as good as drawn by lot."""
    return Split(split.images[:count], split.labels[:count])


def _joined(one: Split, other: Split) -> Split:
    return Split(
        np.concatenate([one.images, other.images]), np.concatenate([one.labels, other.labels])
    )


def train(
    recipe: Recipe,
    data: Dataset,
    *,
    run: Path,
    seed: int = 1,
    precision: str = "auto",
    command: str = "",
    verbose: int = 1,
) -> Result:
    """Train, or go on, score the last epoch, and leave the result in the run folder."""
    keras.utils.clear_session()  # of the recipe before
    state = fit(
        recipe, data, run=run, seed=seed, precision=precision, command=command, verbose=verbose
    )
    network = build(recipe, len(data.labels))
    load_best(network, run)  # the last epoch: no accuracy chose another
    result = Result(
        recipe=recipe.name,
        page=recipe.fingerprint(),
        seed=seed,
        precision=state.precision,
        cores=cores(),
        weights=network.count_params(),
        images=len(data.train.labels),
        epochs=state.epochs,
        seconds=state.seconds,
        metrics=metrics(recipe, network, data),
        device="gpu" if on_gpu() else "cpu",
    )
    reproduction_page.write(run / reproduction_page.FILE, result)
    return result


def metrics(recipe: Recipe, network: keras.Model, data: Dataset) -> dict[str, float]:
    """Accuracy and cross-entropy on the test split; of a network with one score its squared error,
    correlation and best accuracy of ten thresholds on the validation images, and the test split's
    accuracy at that threshold."""
    test, labels = _answers(network, data.test), data.test.labels
    if recipe.gives_classes:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, test)
        right = float(np.mean(test.argmax(axis=1) == labels))
        return {"test_accuracy": right, "test_loss": float(loss)}
    scores, truth = _answers(network, data.validation)[:, 0], data.validation.labels
    threshold = regression.best_threshold(scores, truth)
    return {
        "mean_squared_error": regression.mean_squared_error(scores, truth),
        "correlation": regression.correlation(scores, truth),
        "threshold": threshold,
        "accuracy": regression.accuracy(scores, truth, threshold=threshold),
        "test_accuracy": regression.accuracy(test[:, 0], labels, threshold=threshold),
    }


def _answers(network: keras.Model, split: Split) -> NDArray[np.float32]:
    return np.asarray(network.predict(split.images, batch_size=BATCH, verbose=0), np.float32)
