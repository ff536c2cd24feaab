"""Find suspect labels of a training split: images on which cross-validated models disagree.

Each of K models trains on the other folds of the training split and judges its own; validation and
test are not read. After Northcutt et al., *Confident Learning*, 2021, by the simplest of its
rankings: the probability of the given label. A person has to look at what is listed.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training import recipes
from training.data import pets
from training.data.datasets import Dataset, load
from training.data.splits import Split
from training.errors import UsageError
from training.evaluation.calibration import softmax
from training.fitting import checkpoints
from training.fitting.fit import check, fit
from training.modelling.network import build, predict
from training.modelling.recipe import Recipe


@dataclass(frozen=True)
class Suspect:
    """An image of the training split, and the probability that a model gave its label."""

    row: int  # in the training split
    name: str  # of the file, else empty
    label: str
    likeliest: str
    probability: float

    def __str__(self) -> str:
        """One line: probability, label, the likeliest one, and the image."""
        image = self.name or f"train {self.row}"
        return f"{self.probability:8.4f}  {self.label:12} {self.likeliest:12} {image}"


def audit(options: argparse.Namespace) -> str:
    """Return a table of the images whose label is least probable, the least first. A finished fold
    is not trained again.

    Raises:
        UsageError: if the recipe gives no probabilities.
    """
    entry = recipes.find(options.name)
    if not entry.gives_classes:
        raise UsageError(f"{entry.name} returns a score and no probability for each class.")
    for fold in range(1, options.folds + 1):  # before data are read
        run = _run_folder(options.runs, entry, options.seed, f"{fold}of{options.folds}")
        how = {"epochs": options.epochs, "precision": options.precision}
        check(entry, run=run, seed=options.seed, **how)
    leave_out = pets.unanswerable() if entry.leaves_out else ()
    data = load(entry.dataset, data_dir=options.data_dir, size=entry.size, leave_out=leave_out)
    answers = cross_validated(
        entry,
        data,
        runs=options.runs,
        folds=options.folds,
        seed=options.seed,
        epochs=options.epochs,
        precision=options.precision,
        verbose=options.verbose,
    )
    head = f"{'given':>8}  {'label':12} {'likeliest':12} image"
    return "\n".join([head, *map(str, suspects(data, answers)[: options.worst])])


def cross_validated(
    entry: Recipe,
    data: Dataset,
    *,
    runs: Path,
    folds: int,
    seed: int = 1,
    **how: Any,
) -> NDArray[np.float32]:
    """Return the probabilities ``(N, K)`` of the training images, each by the model that did not
    see it; ``how`` are further options of ``fit``."""
    answers = np.empty((len(data.train.labels), len(data.labels)), np.float32)
    for fold, rows in enumerate(_folds(len(answers), folds, seed), start=1):
        keras.utils.clear_session()  # of the fold before
        rest = replace(
            data,
            train=_take(data.train, np.setdiff1d(np.arange(len(answers)), rows)),
            validation=_take(data.validation, np.arange(0)),  # the last epoch is the result
            content_hash=f"{data.content_hash}, without fold {fold} of {folds}",
        )
        run = _run_folder(runs, entry, seed, f"{fold}of{folds}")
        with checkpoints.locked(run):
            fit(entry, rest, run=run, seed=seed, **how)
            network = build(entry, len(data.labels))
            checkpoints.load_best(network, run)
        answers[rows] = softmax(predict(network, data.train.images[rows]))
    return answers


def _run_folder(runs: Path, entry: Recipe, seed: int, fold: str) -> Path:
    return runs / f"{entry.name}-audit-seed{seed}-fold{fold}"


def _folds(count: int, folds: int, seed: int) -> Iterator[NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(count)
    return (np.sort(rows) for rows in np.array_split(order, folds))


def _take(split: Split, rows: NDArray[np.int64]) -> Split:
    return Split(split.images[rows], split.labels[rows])


def suspects(data: Dataset, answers: NDArray[np.float32]) -> list[Suspect]:
    """Return the training images by the probability of their label, the least first."""
    split = data.train
    given = answers[np.arange(len(answers)), split.labels]
    return [
        Suspect(
            row=row,
            name=split.names[row] if split.names else "",
            label=data.labels[split.labels[row]],
            likeliest=data.labels[answers[row].argmax()],
            probability=float(given[row]),
        )
        for row in np.argsort(given, kind="stable").tolist()
    ]
