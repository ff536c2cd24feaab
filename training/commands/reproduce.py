"""Train the networks of the tutorials as published, and score them by the tutorials' own metrics.

Knows the order of the steps; the results, and the page that compares them and says which images are
used, are ``reproduction_page``. Nothing is published: the network in memory is scored, under
float32. Test data are read once, after training.
"""

import argparse
import logging
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np

from training.commands import regression, reproduction_page
from training.commands.reproduction_page import Result
from training.data.datasets import Dataset, load
from training.data.splits import Split
from training.errors import UsageError
from training.fitting import checkpoints
from training.fitting.fit import check, fit
from training.modelling.network import build, cores, on_gpu, predict
from training.modelling.recipe import Recipe

log = logging.getLogger(__name__)

BATCH = 64  # of inference; at 94×125 a layer of 128 filters uses 0.4 GB for it


def reproduce(options: argparse.Namespace) -> None:
    """Train each of the recipes, or all that reproduce a tutorial, with each seed, and write the
    results to the page. A finished run is not trained again."""
    entries = [_find(name) for name in options.names] or reproduction_page.tutorials()
    page = options.page or options.runs / "reproduction.md"
    data = lru_cache(maxsize=1)(lambda name, size: load(name, data_dir=options.data_dir, size=size))
    reproduction_page.write_page(page)  # before hours of training
    for entry, seed in ((entry, seed) for entry in entries for seed in options.seeds):
        run = reproduction_page.folder(options.runs, entry, seed)
        file = run / reproduction_page.FILE
        result = reproduction_page.read(file, entry, precision=options.precision)
        if result is None:
            check(entry, run=run, seed=seed, precision=options.precision)  # before data are read
            result = train(
                entry,
                as_published(entry, data(entry.dataset, entry.size)),
                run=run,
                seed=seed,
                precision=options.precision,
                command=options.command,
                verbose=options.verbose,
            )
        log.info("%s, seed %d: %s", entry.name, seed, reproduction_page.summary([result]))
        reproduction_page.note(page, result)


def _find(name: str) -> Recipe:
    known = {entry.name: entry for entry in reproduction_page.tutorials()}
    if name not in known:
        raise UsageError(f"No tutorial's recipe named {name!r}. Known: {', '.join(known)}.")
    return known[name]


def as_published(recipe: Recipe, data: Dataset) -> Dataset:
    """Return the images that a tutorial trained on: its part of them, or all, none held out."""
    if recipe.published_split:
        train, validation = recipe.published_split
        parts = _head(data.train, train), _head(data.validation, validation)
    else:
        parts = Split.joined(data.train, data.validation), _head(data.validation, 0)
    return replace(
        data,
        train=parts[0],
        validation=parts[1],
        content_hash=f"{data.content_hash}, split as published",
    )


def _head(split: Split, count: int) -> Split:
    """Return the first images: splits are ordered by hashes, so they are a random sample."""
    return Split(split.images[:count], split.labels[:count])


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
    """Train or resume, score the last epoch, and write the result to the run folder."""
    keras.utils.clear_session()  # of the recipe before
    with checkpoints.locked(run):
        state = fit(
            recipe, data, run=run, seed=seed, precision=precision, command=command, verbose=verbose
        )
        network = build(recipe, len(data.labels))
        checkpoints.load_best(network, run)  # the last epoch, as no accuracy selects another
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
    """Return accuracy and cross-entropy on the test split. For a network with one score: squared
    error, correlation and best accuracy of ten thresholds on the validation images, and the test
    split's accuracy at that threshold."""
    test, labels = predict(network, data.test.images, batch=BATCH), data.test.labels
    if recipe.gives_classes:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, test)
        accuracy = float(np.mean(test.argmax(axis=1) == labels))
        return {"test_accuracy": accuracy, "test_loss": float(loss)}
    scores = predict(network, data.validation.images, batch=BATCH)[:, 0]
    truth = data.validation.labels
    threshold = regression.best_threshold(scores, truth)
    return {
        "mean_squared_error": regression.mean_squared_error(scores, truth),
        "correlation": regression.correlation(scores, truth),
        "threshold": threshold,
        "accuracy": regression.accuracy(scores, truth, threshold=threshold),
        "test_accuracy": regression.accuracy(test[:, 0], labels, threshold=threshold),
    }
