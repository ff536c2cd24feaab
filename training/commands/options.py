"""The options of each command.

Knows the form of an option; knows nothing of what a command does with it.
"""

import argparse
from pathlib import Path

from training.data.datasets import default_data_dir

HIGHEST_SEED = 2**32 - 1  # NumPy's legacy generator, which Keras seeds, takes 32 bits
PRECISIONS = ("auto", "float32", "mixed_bfloat16")


def parser(description: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands; it sets ``run`` to the name of the command."""
    parser = argparse.ArgumentParser(prog="python -m training", description=description)
    add = parser.add_subparsers(required=True, metavar="COMMAND", dest="run").add_parser
    add("list", help="list every recipe, its model and its gate")
    train = add("train", help="train and publish")
    export = add("export", help="publish a finished run")
    evaluate = add("evaluate", help="score a published model on its test split")
    reproduce = add("reproduce", help="train the tutorials' networks as published, and compare")
    compare = add("compare", help="show two published versions side by side")
    audit = add("audit", help="list training images whose label cross-validated models doubt")
    for command in (train, export, evaluate, reproduce, compare, audit):
        _add_folder(command, "--data-dir", "the data sets", default_data_dir())
    for command in (train, export, evaluate, compare):
        _add_folder(command, "--models", "the published versions", "models")
    for command in (train, export, reproduce, audit):
        _add_folder(command, "--runs", "the checkpoints", "runs")
    for command in (train, export):
        command.add_argument(
            "names", nargs="+", metavar="NAME", help="a recipe, or a model for its recommended one"
        )
        command.add_argument(
            "--extra",
            type=Path,
            metavar="DIR",
            help="also train on the images in DIR/<model>/<label>/ or DIR/<label>/",
        )
        command.add_argument(
            "--corrupted",
            action=argparse.BooleanOptionalAction,
            help="publish the accuracy on corrupted test images too (default: of recommended "
            "recipes; it takes minutes)",
        )
    for command in (train, export, audit):
        command.add_argument("--seed", type=_seed, default=1, help="default: %(default)s")
    for command in (train, reproduce, audit):
        command.add_argument("--precision", choices=PRECISIONS, default="auto")
    _add_train_options(train)
    _add_reproduce_options(reproduce)
    _add_evaluate_options(evaluate)
    _add_compare_options(compare)
    _add_audit_options(audit)
    return parser


def _add_folder(
    command: argparse.ArgumentParser, name: str, content: str, default: str | Path
) -> None:
    summary = f"the folder of {content} (default: %(default)s)"
    command.add_argument(name, type=Path, default=Path(default), help=summary)


def _add_train_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    _add_epochs(command)
    add(
        "--hosts",
        metavar="HOST:PORT,…",
        help="train together, one process on each host; default: MASTER_ADDR, MASTER_PORT and "
        "WORLD_SIZE, if a launcher sets them",
    )
    add(
        "--host-index",
        metavar="I",
        help="the index of this host, from 0 (default: $RANK or $JOB_COMPLETION_INDEX)",
    )
    add(
        "--host-patience",
        type=_positive,
        default=600,
        metavar="SECONDS",
        help="wait this long for the other hosts at the start (default: %(default)s)",
    )
    add(
        "--tensorboard",
        type=Path,
        nargs="?",
        const=Path("runs/tensorboard"),
        metavar="DIR",
        help="write curves for TensorBoard (default: %(const)s)",
    )
    add(
        "--no-publish",
        dest="publish",
        action="store_false",
        help="train only; `export` publishes later",
    )


def _add_epochs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--epochs", type=_positive, help="instead of the recipe's own number")


def _add_reproduce_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("names", nargs="*", metavar="NAME", help="a tutorial's recipe (default: all)")
    add("--seeds", type=_seeds, default=(1,), metavar="SEED,…", help="default: 1")
    add("--page", type=Path, help="the comparison to write (default: reproduction.md in --runs)")


def _add_evaluate_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    either = "default: the highest version; or the path of a version's folder"
    add("name", metavar="MODEL[/VERSION]", help=either)
    add("--url", help="POST the test files to this service, e.g. http://localhost:8000")
    add(
        "--photographed",
        action="store_true",
        help="digits over HTTP only: dark on light, 200×150 scaled 1-6 times, JPEG",
    )
    add("--corrupted", action="store_true", help="score corrupted test images, by kind")
    add("--unfamiliar", action="store_true", help="score pictures of something else, by kind")
    add("--full", action="store_true", help="print all figures of the card, of both files")
    add("--limit", type=_positive, metavar="N", help="with --corrupted: the first N test images")
    add("--precision", choices=("float32", "int8"), default="float32", help="of the file")


def _add_compare_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    either = "default: the highest version; or the path of a version's folder"
    add("versions", nargs=2, metavar="MODEL[/VERSION]", help=either)
    summary = "run both on their test split, and count the different answers"
    add("--on-data", action="store_true", help=summary)


def _add_audit_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("name", metavar="NAME", help="a recipe, or a model for its recommended one")
    _add_epochs(command)
    add("--folds", type=_folds, default=4, metavar="K", help="models (default: %(default)s)")
    add("--worst", type=_positive, default=50, metavar="N", help="images (default: %(default)s)")


def _folds(text: str) -> int:
    if _whole(text) < 2:
        raise argparse.ArgumentTypeError(f"expected at least 2, not {text}")
    return int(text)


def _seed(text: str) -> int:
    if (seed := _whole(text)) > HIGHEST_SEED:
        raise argparse.ArgumentTypeError(f"expected at most {HIGHEST_SEED}, not {text}")
    return seed


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, not {text!r}")
    return int(text)


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(map(_seed, text.split(",")))


def _positive(text: str) -> int:
    if not _whole(text):
        raise argparse.ArgumentTypeError("expected a positive number, not 0")
    return int(text)
