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
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported

from training import hosts
from training.datasets import Dataset, default_data_dir, load, test_uploads
from training.errors import PublishFailed, TrainingError, UsageError
from training.stop import SIGTERM

if TYPE_CHECKING:
    from training.recipe import Recipe

PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    options.backend = os.environ.get("KERAS_BACKEND")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options.run(options)
    except TrainingError as exc:
        print(f"training: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        print("Stopped. The same command goes on after the last whole epoch.", file=sys.stderr)
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
    for command in (train, export, evaluate, reproduce):
        _add_folder(command, "--data-dir", "the archives (default: $DATA_DIR or the user's cache)")
    for command in (train, export, evaluate):
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
    return parser


def _add_folder(
    command: argparse.ArgumentParser, name: str, holds: str, *, default: str | None = None
) -> None:
    told = f"the folder of {holds}" + (" (default: %(default)s)" if default else "")
    command.add_argument(name, type=Path, default=default and Path(default), help=told)


def _add_train_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--epochs", type=_positive, help="instead of the recipe's own number")
    hosts.add_options(command)
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
    from training import parallel

    entries = _entries(options)
    if together:
        for entry in entries:
            hosts.check_batch(together, entry.name, entry.batch_size)
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
    state = fit(
        entry,
        data,
        run=_run_folder(options, entry),
        seed=options.seed,
        epochs=options.epochs,
        precision=options.precision,
        command=_command(),
        verbose=0 if together and together.index else _verbosity(),
    )
    print(
        f"{entry.name}: best on validation data after epoch {state.best_epoch}: "
        f"{state.best_accuracy:.2%}"
    )
    if state.published and Path(state.published).exists():
        print(f"{state.published} holds this run already; `export` publishes it once more")
    elif options.publish:
        _publish(options, entry, data)


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
    from training.run import read_state

    for entry in _entries(options):
        read_state(_run_folder(options, entry))  # before minutes of reading data
        _check_publishing(options.models)
        _publish(options, entry, _data(options, entry))


def _run_folder(options: argparse.Namespace, entry: "Recipe") -> Path:
    folder: Path = options.runs / f"{entry.name}-seed{options.seed}"
    return folder


def _data(options: argparse.Namespace, entry: "Recipe") -> Dataset:
    return load(entry.dataset, data_dir=_data_dir(options), size=entry.size)


def _publish(options: argparse.Namespace, entry: "Recipe", data: Dataset) -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        hosts.export(options, entry.name, data_dir=_data_dir(options))
        return
    from training.publish import publish

    folder = publish(entry, data, run=_run_folder(options, entry), models=options.models)
    print(f"published {folder}")


def _evaluate(options: argparse.Namespace) -> None:
    from training import evaluate, recipe

    name, _, version = options.name.partition("/")
    if version and not version.isdigit():
        raise UsageError(f"A version is a positive integer, not {version!r}.")
    if options.photographed and not (options.url and name == "digits"):
        raise UsageError("--photographed is for digits over HTTP: give --url and the model digits.")
    if options.url and not options.url.startswith(("http://", "https://")):
        raise UsageError(f"Expected an address that begins with http://, not {options.url!r}.")
    dataset, data_dir = recipe.find(name).dataset, _data_dir(options)
    if options.url:
        uploads = test_uploads(dataset, data_dir=data_dir)
        sent = evaluate.photographed(uploads) if options.photographed else uploads
        result = evaluate.over_http(
            options.url, name, sent, version=int(version) if version else None
        )
    else:
        result = evaluate.file(
            _published(options.models / name, version), dataset, data_dir=data_dir
        )
    print(f"{options.name}: {result}")


def _published(folder: Path, version: str) -> Path:
    """The file of that version of a model, or of its highest."""
    known = sorted(int(entry.name) for entry in folder.glob("[1-9]*") if entry.name.isdigit())
    if not known:
        raise UsageError(f"Nothing is published in {folder}.")
    if version and int(version) not in known:
        raise UsageError(f"No version {version} in {folder}. Known versions: {known}.")
    return folder / str(version or known[-1]) / "model.onnx"


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
