"""The command line of the training half.

Keras is imported by the commands that need it, so that a wrong option is told at once.

Exit codes: 0 done, 1 a failure of ours or of the machine, 2 wrong usage, 3 the data, 4 below the
recipe's accuracy gate, 75 stopped by SIGTERM: the same command goes on.
"""

import argparse
import importlib.util
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported

from training import hosts
from training.datasets import Dataset, default_data_dir, load, test_uploads
from training.errors import PublishFailed, TrainingError, UsageError
from training.options import parser
from training.stop import SIGTERM

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.track import Tracker


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    told = _parser().parse_args(arguments)
    told.arguments = sys.argv[1:] if arguments is None else list(arguments)
    told.backend = os.environ.get("KERAS_BACKEND")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)  # it tells of every device that is not there
    try:
        told.run(told)
    except TrainingError as exc:
        print(f"training: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from its checkpoint.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    runs = {
        "list": _list,
        "train": _train,
        "export": _export,
        "evaluate": _evaluate,
        "reproduce": _reproduce,
        "compare": _compare,
    }
    return parser(runs, __doc__)


def _data_dir(options: argparse.Namespace) -> Path:
    return options.data_dir or default_data_dir()


def _list(_options: argparse.Namespace) -> None:
    from training import recipe

    for entry in map(recipe.find, recipe.names()):
        mark = (
            "recommended" if entry.recommended else "" if entry.gives_classes else "reproduce only"
        )
        print(
            f"{entry.name:24} {entry.model:14} at least {entry.min_accuracy:.1%}  "
            f"{entry.epochs:3} epochs  {mark}".rstrip()
        )


def _train(options: argparse.Namespace) -> None:
    if together := hosts.find(options, os.environ):
        hosts.train(together, options, _train_here)
    else:
        _train_here(options)


def _train_here(options: argparse.Namespace, together: hosts.Hosts | None = None) -> None:
    from training import parallel, track

    entries = _entries(options)
    if together:
        for entry in entries:
            hosts.check_batch(together, entry.name, entry.batch_size)
    track.check(options.tensorboard)
    if options.publish:
        _check_publishing(options.models)  # now, not after hours of training
    with parallel.joined(together) if together else nullcontext():
        for entry in entries:
            _train_one(options, entry, together)


def _train_one(options: argparse.Namespace, entry: "Recipe", together: hosts.Hosts | None) -> None:
    from training import parallel, run
    from training.fit import fit

    with run.alone(_run_folder(options, entry)):
        pass  # told now, not after minutes of reading data
    data = _data(options, entry)
    for note in data.notes:
        print(note)
    if together:
        facts = {"page": entry.fingerprint(), "data": data.content_hash, "seed": options.seed}
        facts |= {"epochs": options.epochs, "precision": options.precision}
        parallel.follow_first(_run_folder(options, entry), facts | {"recipes": options.names})
    first = together is None or together.index == 0  # the others follow in silence
    trackers = _trackers(options, entry) if first else []
    state = fit(
        entry,
        data,
        run=_run_folder(options, entry),
        seed=options.seed,
        epochs=options.epochs,
        precision=options.precision,
        command=_command(),
        callbacks=trackers,
        verbose=_verbosity() if first else 0,
    )
    for tracker in trackers:
        tracker.ended()
    print(
        f"{entry.name}: best on validation data after epoch {state.best_epoch}: "
        f"{state.best_accuracy:.2%}"
    )
    if state.published and Path(state.published).exists():
        print(f"{state.published} holds this run already; `export` publishes it once more")
    elif options.publish:
        _publish(options, entry, data, trackers)


def _trackers(options: argparse.Namespace, entry: "Recipe") -> list["Tracker"]:
    from training import track

    return track.trackers(
        entry,
        run=_run_folder(options, entry),
        seed=options.seed,
        epochs=getattr(options, "epochs", None),
        tensorboard=getattr(options, "tensorboard", None),
    )


def _entries(options: argparse.Namespace) -> list["Recipe"]:
    from training import recipe

    entries = [recipe.find(name) for name in options.names]
    for entry in entries:
        if not entry.gives_classes:
            raise UsageError(
                f"{entry.name} gives one score and no probability for each class, so it cannot be "
                f"published. `reproduce {entry.name}` trains it."
            )
    return entries


def _command() -> str:
    return shlex.join(["python", "-m", "training", *sys.argv[1:]])


def _verbosity() -> int:
    """Of Keras: a bar on a terminal, a line for each epoch elsewhere."""
    return 1 if sys.stdout.isatty() else 2


def _reproduce(options: argparse.Namespace) -> None:
    from training.reproduce import reproduce

    reproduce(
        options.names,
        seeds=options.seeds,
        runs=options.runs,
        page=options.page,
        data_dir=_data_dir(options),
        precision=options.precision,
        command=_command(),
        verbose=_verbosity(),
    )


def _check_publishing(models: Path) -> None:
    if not all(map(importlib.util.find_spec, ("tensorflow", "tf2onnx"))):
        raise UsageError(
            "Only TensorFlow can export, and it is not installed. Train with --no-publish, then "
            "run `export` where it is."
        )
    writable = next(path for path in (models, *models.absolute().parents) if path.exists())
    if not (writable.is_dir() and os.access(writable, os.W_OK)):
        raise PublishFailed(f"{models} cannot be written. Expected a folder to publish in.")


def _export(options: argparse.Namespace) -> None:
    from training import track
    from training.run import read_state

    track.check()
    for entry in _entries(options):
        read_state(_run_folder(options, entry))  # before minutes of reading data
        _check_publishing(options.models)
        _publish(options, entry, _data(options, entry), _trackers(options, entry))


def _run_folder(options: argparse.Namespace, entry: "Recipe") -> Path:
    folder: Path = options.runs / f"{entry.name}-seed{options.seed}"
    return folder


def _data(options: argparse.Namespace, entry: "Recipe") -> Dataset:
    return load(entry.dataset, data_dir=_data_dir(options), size=entry.size)


def _publish(
    options: argparse.Namespace, entry: "Recipe", data: Dataset, trackers: list["Tracker"]
) -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        hosts.export(options, entry.name, data_dir=_data_dir(options))
        return
    from training.publish import publish

    folder = publish(entry, data, run=_run_folder(options, entry), models=options.models)
    print(f"published {folder}")
    for tracker in trackers:
        tracker.published(folder)


def _evaluate(options: argparse.Namespace) -> None:
    from training import evaluate, published, recipe

    name, version = published.parse(options.name)
    if options.photographed and not (options.url and name == "digits"):
        raise UsageError("--photographed is for digits over HTTP: give --url and the model digits.")
    if options.url and not options.url.startswith(("http://", "https://")):
        raise UsageError(f"Expected an address that begins with http://, not {options.url!r}.")
    dataset, data_dir = recipe.find(name).dataset, _data_dir(options)
    if options.url:
        uploads = test_uploads(dataset, data_dir=data_dir)
        sent = evaluate.photographed(uploads) if options.photographed else uploads
        result = evaluate.over_http(options.url, name, sent, version=version)
    else:
        file = published.find(options.name, options.models).file
        result = evaluate.file(file, dataset, data_dir=data_dir)
    print(f"{options.name}: {result}")


def _compare(options: argparse.Namespace) -> None:
    from training import compare, published

    one, other = (published.find(text, options.models) for text in options.versions)
    print(compare.table(one, other))
    if options.on_data:
        print(compare.on_data(one, other, data_dir=_data_dir(options)))


if __name__ == "__main__":
    SIGTERM.listen()
    sys.exit(main())
