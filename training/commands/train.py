"""The commands that train and publish, as their options ask: each recipe in turn, alone or together
with other hosts.

Knows the order of the steps and what must be told before hours of work; each step is another
module's. Keras is imported when the options are found right.
"""

import argparse
import importlib.util
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from training.data import feedback_images
from training.data.datasets import Dataset, load
from training.data.sources import SOURCES
from training.errors import PublishFailed, UsageError
from training.fitting import launcher

if TYPE_CHECKING:
    from training.fitting.tracking import Tracker
    from training.modelling.recipe import Recipe


def train(options: argparse.Namespace) -> None:
    """Train recipes and, where it is asked for, publish each as the next version of its model."""
    if together := launcher.find(options, os.environ):
        launcher.train(together, options, _train_here)
    else:
        _train_here(options)


def export(options: argparse.Namespace) -> None:
    """Publish what runs have reached."""
    from training.fitting import tracking
    from training.fitting.checkpoints import alone, read_state

    tracking.check()
    for entry in _entries(options):
        folder = _run_folder(options, entry)
        read_state(folder)  # what is wrong is told now, not after minutes of reading data
        _check_publishing(options.models)
        with alone(folder):
            trackers = _trackers(options, entry)
        _publish(options, entry, _data(options, entry), trackers)


def _train_here(options: argparse.Namespace, together: launcher.Hosts | None = None) -> None:
    from training.fitting import distributed, tracking

    entries = _entries(options)
    if together:
        for entry in entries:
            launcher.check_batch(together, entry.name, entry.batch_size)
    tracking.check(options.tensorboard)
    if options.publish:
        _check_publishing(options.models)  # now, not after hours of training
    with distributed.joined(together) if together else nullcontext():
        for entry in entries:
            _train_one(options, entry, together)


def _train_one(
    options: argparse.Namespace, entry: "Recipe", together: launcher.Hosts | None
) -> None:
    from training.fitting import checkpoints, distributed
    from training.fitting.fit import fit

    first = together is None or together.index == 0  # the others follow in silence
    with checkpoints.alone(
        _run_folder(options, entry)
    ):  # told now, not after minutes of reading data
        trackers = _trackers(options, entry) if first else []
    data = _data(options, entry)
    for note in data.notes:
        print(note)
    if together:
        facts = {"page": entry.fingerprint(), "data": data.content_hash, "seed": options.seed}
        facts |= {"epochs": options.epochs, "precision": options.precision}
        distributed.follow_first(_run_folder(options, entry), facts | {"recipes": options.names})
    state = fit(
        entry,
        data,
        run=_run_folder(options, entry),
        seed=options.seed,
        epochs=options.epochs,
        precision=options.precision,
        command=options.command,
        callbacks=trackers,
        verbose=options.verbose if first else 0,
    )
    for tracker in trackers:
        tracker.ended()
    print(
        f"{entry.name}: best on validation data after epoch {state.best_epoch}: "
        f"{state.best_accuracy:.2%}"
    )
    if held := checkpoints.published(state, options.models / entry.model):
        print(f"{held} holds this run already; `export` publishes it once more")
    elif options.publish:
        _publish(options, entry, data, trackers)


def _publish(
    options: argparse.Namespace, entry: "Recipe", data: Dataset, trackers: list["Tracker"]
) -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        launcher.export(options, entry.name)
        return
    from training.evaluation import published
    from training.publishing.publish import publish

    before = _accuracy_now(options.models, entry.model)
    folder = publish(entry, data, run=_run_folder(options, entry), models=options.models)
    print(f"published {folder}")
    after = published.Version(folder).accuracy
    if before is not None and after < before:
        print(
            f"Note: the version before is right on {before:.2%}, this one on {after:.2%}; services "
            "take the highest. Remove the folder, or train with another --models."
        )
    for tracker in trackers:
        tracker.published(folder)


def _accuracy_now(models: Path, name: str) -> float | None:
    """Of the version that services take; None where there is none."""
    from training.evaluation import published

    try:
        return published.find(name, models).accuracy
    except UsageError:
        return None


def _entries(options: argparse.Namespace) -> list["Recipe"]:
    from training.modelling import recipe

    entries = [recipe.find(name) for name in options.names]
    for entry in entries:
        if not entry.gives_classes:
            raise UsageError(
                f"{entry.name} gives one score and no probability for each class, so it cannot be "
                f"published. `reproduce {entry.name}` trains it."
            )
        if options.extra:  # what is wrong is told before the first of them trains
            labels = SOURCES[entry.dataset].labels
            feedback_images.find(options.extra, model=entry.model, labels=labels)
    return entries


def _check_publishing(models: Path) -> None:
    if not all(map(importlib.util.find_spec, ("tensorflow", "tf2onnx"))):
        raise UsageError(
            "Only TensorFlow can export, and it is not installed. Train with --no-publish, then "
            "run `export` where it is."
        )
    try:
        there = next(path for path in (models, *models.absolute().parents) if path.exists())
        writable = there.is_dir() and os.access(there, os.W_OK)
    except OSError:  # in a folder that is closed to us
        writable = False
    if not writable:
        raise PublishFailed(f"{models} cannot be written. Expected a folder to publish in.")


def _trackers(options: argparse.Namespace, entry: "Recipe") -> list["Tracker"]:
    from training.fitting import tracking

    return tracking.trackers(
        entry,
        run=_run_folder(options, entry),
        seed=options.seed,
        epochs=getattr(options, "epochs", None),
        tensorboard=getattr(options, "tensorboard", None),
    )


def _run_folder(options: argparse.Namespace, entry: "Recipe") -> Path:
    folder: Path = options.runs / f"{entry.name}-seed{options.seed}"
    return folder


def _data(options: argparse.Namespace, entry: "Recipe") -> Dataset:
    data = load(entry.dataset, data_dir=options.data_dir, size=entry.size)
    if options.extra:
        return feedback_images.add(data, options.extra, model=entry.model, fit=entry.fit)
    return data
