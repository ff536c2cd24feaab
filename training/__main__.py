"""The command line of the training half.

Keras is imported by the commands that need it, so that a wrong option is told at once.

Exit codes: 0 done, 1 a failure of ours or of the machine, 2 wrong usage, 3 the data, 4 below the
recipe's accuracy gate, 75 stopped by SIGTERM: the same command goes on.
"""

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported

from training.datasets import Dataset, default_data_dir, load, test_uploads
from training.errors import PublishFailed, TrainingError, UsageError
from training.stop import SIGTERM

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.track import Tracker

PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options.run(options)
    except TrainingError as exc:
        print(f"training: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from its checkpoint.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., None], help: str) -> argparse.ArgumentParser:  # noqa: A002
        command = commands.add_parser(name, help=help)
        command.set_defaults(run=run)
        return command

    add("list", _list, "every recipe, its model and its gate")
    train = add("train", _train, "train and publish")
    export = add("export", _export, "publish what a run has reached")
    evaluate = add("evaluate", _evaluate, "score a published model on its test split")
    reproduce = add("reproduce", _reproduce, "train the tutorials' networks as published, compare")
    compare = add("compare", _compare, "two published versions side by side")
    for command in (train, export, evaluate, reproduce, compare):
        _add_folder(command, "--data-dir", "the archives (default: $DATA_DIR or the user's cache)")
    for command in (train, export, evaluate, compare):
        _add_folder(command, "--models", "the published versions", default="models")
    for command in (train, export, reproduce):
        _add_folder(command, "--runs", "the checkpoints", default="runs")
    for command in (train, export):
        command.add_argument(
            "names", nargs="+", metavar="NAME", help="a recipe, or a model for its recommended one"
        )
        command.add_argument("--seed", type=_seed, default=1, help="default: %(default)s")
    for command in (train, reproduce):
        command.add_argument("--precision", choices=PRECISIONS, default="auto")
    _add_train_options(train)
    _add_reproduce_options(reproduce)
    _add_evaluate_options(evaluate)
    _add_compare_options(compare)
    return parser


def _add_folder(
    command: argparse.ArgumentParser, name: str, holds: str, *, default: str | None = None
) -> None:
    told = f"the folder of {holds}" + (" (default: %(default)s)" if default else "")
    command.add_argument(name, type=Path, default=default and Path(default), help=told)


def _add_train_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--epochs", type=_positive, help="instead of the recipe's own number")
    command.add_argument(
        "--tensorboard",
        type=Path,
        nargs="?",
        const=Path("runs/tensorboard"),
        metavar="DIR",
        help="write curves for TensorBoard (default: %(const)s)",
    )
    command.add_argument(
        "--no-publish",
        dest="publish",
        action="store_false",
        help="train only; `export` publishes later",
    )


def _add_reproduce_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "names", nargs="*", metavar="NAME", help="a tutorial's recipe (default: all)"
    )
    command.add_argument("--seeds", type=_seeds, default=(1,), metavar="SEED,…", help="default: 1")
    command.add_argument(
        "--page",
        type=Path,
        default=Path("docs/reproduction.md"),
        help="the comparison to write (default: %(default)s)",
    )


def _add_evaluate_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "name", metavar="MODEL[/VERSION]", help="the highest version where none is given"
    )
    command.add_argument(
        "--url", help="POST the test files to this service, e.g. http://localhost:8000"
    )
    command.add_argument(
        "--photographed",
        action="store_true",
        help="digits over HTTP only: dark on light, 200×150 scaled 1-6 times, JPEG",
    )


def _add_compare_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "versions",
        nargs=2,
        metavar="MODEL[/VERSION]",
        help="the highest version where none is given; or the path of a version's folder",
    )
    command.add_argument(
        "--on-data",
        action="store_true",
        help="let both answer their test split, and count where they disagree",
    )


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
    from training import run, track
    from training.fit import fit

    entries = _entries(options)
    track.check(options.tensorboard)
    if options.publish:
        _check_publishing(options.models)  # now, not after hours of training
    for entry in entries:
        with run.alone(_run_folder(options, entry)):
            pass  # told now, not after minutes of reading data
        data = _data(options, entry)
        for note in data.notes:
            print(note)
        trackers = _trackers(options, entry)
        state = fit(
            entry,
            data,
            run=_run_folder(options, entry),
            seed=options.seed,
            epochs=options.epochs,
            precision=options.precision,
            command=_command(),
            callbacks=trackers,
            verbose=_verbosity(),
        )
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
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            "Only the TensorFlow backend can export. Train with --no-publish, then run `export` "
            "with KERAS_BACKEND=tensorflow."
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


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, not {text!r}")
    return int(text)


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(map(_seed, text.split(",")))


def _positive(text: str) -> int:
    if not _seed(text):
        raise argparse.ArgumentTypeError("expected a positive number, not 0")
    return int(text)


if __name__ == "__main__":
    SIGTERM.listen()
    sys.exit(main())
