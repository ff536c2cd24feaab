"""The commands that train and publish: each recipe in turn, alone or together with other hosts.

Knows the order of the steps and the checks that come before hours of work; each step is another
module's. Keras is imported once the options are checked. A command locks a run folder once.
"""

import argparse
import importlib.util
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import recipes
from training.data import feedback_images, outliers, pets
from training.data.datasets import Dataset, load
from training.data.sources import SOURCES
from training.errors import PublishFailed, UsageError, translated
from training.fitting import launcher
from training.publishing import versions
from training.start_up import import_keras

if TYPE_CHECKING:
    from training.fitting.checkpoints import State
    from training.fitting.tracking import Tracker
    from training.modelling.recipe import Recipe


def train(options: argparse.Namespace) -> None:
    """Train recipes and, without --no-publish, publish each as the next version of its model."""
    if together := launcher.find(options, os.environ):
        launcher.train(together, options, _train_here)
    else:
        _train_here(options)


def export(options: argparse.Namespace) -> None:
    """Publish finished runs."""
    import_keras()
    from training.fitting import checkpoints, tracking

    for entry in _entries(options):
        run = _run_folder(options, entry)
        checkpoints.read_state(run)  # before a lock makes the folder
        _check_publishing(options.models)
        if not _can_export():
            _export_by_tensorflow(options, entry)
            continue
        with checkpoints.locked(run):
            state = checkpoints.finished(run, entry.name, entry.fingerprint())
            trackers = _trackers(options, entry)
            data = _data(options, entry)
            for tracker in trackers:
                tracker.begun(state)
            with tracking.closing(trackers):
                _publish(options, entry, data, trackers)


def _train_here(options: argparse.Namespace, together: launcher.Hosts | None = None) -> None:
    import_keras()
    from training.fitting import distributed

    entries = _entries(options)
    if together:
        for entry in entries:
            launcher.check_batch(together, entry.name, entry.batch_size)
    if options.publish:
        _check_publishing(options.models)  # before hours of training
    patience = options.host_patience
    with distributed.joined(together, patience=patience) if together else nullcontext():
        for entry in entries:
            if _train_one(options, entry, together):
                _export_by_tensorflow(options, entry)


def _train_one(
    options: argparse.Namespace, entry: "Recipe", together: launcher.Hosts | None
) -> bool:
    """Train a recipe and publish it; return True if another process must publish it."""
    from training.fitting import checkpoints, distributed, tracking
    from training.fitting.fit import check, fit, policy

    run = _run_folder(options, entry)
    first = together is None or together.index == 0  # the other hosts print nothing
    how: dict[str, Any] = {"run": run, "seed": options.seed}
    how |= {"epochs": options.epochs, "precision": options.precision}
    with checkpoints.locked(run):
        if together:
            distributed.agree(_facts(options, entry))
            distributed.follow_first(run)
        check(entry, **how)  # before minutes of reading data
        trackers = _trackers(options, entry) if first else []
        data = _data(options, entry)
        if together:
            precision = policy(options.precision, run)  # GPUs may have another than processors
            distributed.agree({"data": data.content_hash, "precision": precision})
        for note in data.notes:
            print(note)
        with tracking.closing(trackers):
            state = fit(
                entry,
                data,
                command=options.command,
                callbacks=trackers,
                verbose=options.verbose if first else 0,
                **how,
            )
            return _finish(options, entry, data, state, trackers)


def _finish(
    options: argparse.Namespace,
    entry: "Recipe",
    data: Dataset,
    state: "State",
    trackers: list["Tracker"],
) -> bool:
    """Report a trained run and publish it; return True if another process must publish it."""
    for tracker in trackers:
        tracker.ended()
    print(
        f"{entry.name}: best on validation data after epoch {state.best_epoch}: "
        f"{state.best_accuracy:.2%}"
    )
    if held := versions.holding(options.models, entry.model, state.published):
        print(f"{held} is this run already; `export` publishes it once more")
    elif options.publish and _can_export():
        _publish(options, entry, data, trackers)
    else:
        return bool(options.publish)
    return False


def _facts(options: argparse.Namespace, entry: "Recipe") -> dict[str, object]:
    """Return what every host must have in common, data aside."""
    from training.fitting import provenance

    facts: dict[str, object] = {"recipes": options.names, "page": entry.fingerprint()}
    facts |= {"seed": options.seed, "epochs": options.epochs}
    return facts | provenance.facts(provenance.source("jax"))


def _can_export() -> bool:
    """Return True if this process has the backend that exports."""
    return os.environ["KERAS_BACKEND"] == "tensorflow"


def _export_by_tensorflow(options: argparse.Namespace, entry: "Recipe") -> None:
    """Publish a run by another process: a process has one backend, and only TensorFlow exports."""
    folders = {"runs": options.runs, "models": options.models, "data-dir": options.data_dir}
    folders |= {"extra": options.extra} if options.extra else {}
    launcher.run(
        ["export", entry.name, f"--seed={options.seed}"]
        + [f"--{key}={folder}" for key, folder in folders.items()]
        + {None: [], True: ["--corrupted"], False: ["--no-corrupted"]}[options.corrupted],
        # without the GPU, whose memory JAX holds
        {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"},
    )


def _publish(
    options: argparse.Namespace, entry: "Recipe", data: Dataset, trackers: list["Tracker"]
) -> None:
    from training.evaluation import published
    from training.publishing.publish import publish

    try:
        before = published.find(entry.model, options.models).accuracy
    except UsageError:  # the first version
        before = 0.0
    corrupted = entry.recommended if options.corrupted is None else options.corrupted
    folder = publish(
        entry,
        data,
        run=_run_folder(options, entry),
        models=options.models,
        corrupted=corrupted,
    )
    print(f"published {folder}")
    version = published.Version(folder)
    if version.accuracy < before:
        print(
            f"Note: the version before has {before:.2%} accuracy, this one {version.accuracy:.2%}. "
            "Services use the highest version. Delete the folder, or train with another --models."
        )
    for tracker in trackers:
        tracker.published(version)


def _entries(options: argparse.Namespace) -> list["Recipe"]:
    entries = [recipes.find(name) for name in options.names]
    for entry in entries:
        if not entry.gives_classes:
            raise UsageError(
                f"{entry.name} returns one score and no probability for each class, so it cannot "
                f"be published. `reproduce {entry.name}` trains it."
            )
        if options.extra:  # before the first of them trains
            labels = SOURCES[entry.dataset].labels
            feedback_images.find(options.extra, model=entry.model, labels=labels)
    return entries


def _check_publishing(models: Path) -> None:
    if not all(map(importlib.util.find_spec, ("tensorflow", "tf2onnx"))):
        raise UsageError(
            "Only TensorFlow can export, and it is not installed. Train with --no-publish, then "
            "run `export` on a host that has it."
        )
    with translated(PublishFailed, f"{models} cannot be written"):
        models.mkdir(parents=True, exist_ok=True)
    if not os.access(models, os.W_OK):
        raise PublishFailed(f"{models} cannot be written. Expected: a writable folder.")


def _trackers(options: argparse.Namespace, entry: "Recipe") -> list["Tracker"]:
    from training.fitting import tracking

    return tracking.trackers(
        entry,
        run=_run_folder(options, entry),
        tensorboard=getattr(options, "tensorboard", None),
    )


def _run_folder(options: argparse.Namespace, entry: "Recipe") -> Path:
    return Path(options.runs, f"{entry.name}-seed{options.seed}")


def _data(options: argparse.Namespace, entry: "Recipe") -> Dataset:
    leave_out = pets.unanswerable() if entry.leaves_out else ()
    data = load(entry.dataset, data_dir=options.data_dir, size=entry.size, leave_out=leave_out)
    if options.extra:
        data = feedback_images.add(data, options.extra, model=entry.model, fit=entry.fit)
    return outliers.add(
        data,
        entry.outliers,
        share=entry.outlier_share,
        seed=options.seed,
        data_dir=options.data_dir,
    )
