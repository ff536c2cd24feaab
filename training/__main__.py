"""Train, publish, evaluate and compare image classifiers.

Exit codes: 0 done, 1 an internal failure or a failure of the machine, 2 wrong usage, 3 bad data,
4 below the recipe's accuracy gate, 75 stopped by SIGTERM or by the loss of another host, 130
stopped by Ctrl-C. After 75 and 130 the same command resumes.
"""  # the description in --help

import argparse
import importlib.util
import logging
import os
import shlex
import sys
from collections.abc import Sequence

# Read when TensorFlow is imported. Below 3, it writes an error on every machine without a GPU; what
# stops it raises an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from training import recipes  # no import of Keras here, so that a wrong option is reported at once
from training.commands import train
from training.commands.options import parser
from training.errors import Preempted, TrainingError, UsageError
from training.fitting.signals import SIGTERM
from training.start_up import import_keras

BACKENDS = {"tensorflow": "train", "jax": "train-jax"}  # by the extra that installs each


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser(__doc__).parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    options.command = shlex.join(["python", "-m", "training", *options.arguments])
    options.verbose = 1 if sys.stdout.isatty() else 2  # of Keras: a bar, or a line for each epoch
    options.backend = os.environ.get("KERAS_BACKEND")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)  # it logs every device that is missing
    try:
        _check_backend(os.environ["KERAS_BACKEND"])
        COMMANDS[options.run](options)
    except (TrainingError, Preempted) as exc:
        print(f"training: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:  # the second Ctrl-C: the current step is lost
        print("Stopped. The same command resumes from its checkpoint.", file=sys.stderr)
        return 130
    return 0


def _check_backend(name: str) -> None:
    """Report a missing backend before Keras raises a long traceback."""
    if name not in BACKENDS:
        raise UsageError(f"KERAS_BACKEND is {name!r}. Expected {' or '.join(BACKENDS)}.")
    if importlib.util.find_spec(name) is None:
        raise UsageError(
            f"{name} is not installed. `pip install '.[{BACKENDS[name]}]'` installs it."
        )


def _list(_options: argparse.Namespace) -> None:
    import_keras()  # a page does
    for entry in map(recipes.find, recipes.names()):
        mark = (
            "recommended" if entry.recommended else "" if entry.gives_classes else "reproduce only"
        )
        print(
            f"{entry.name:24} {entry.model:14} at least {entry.min_accuracy:.1%}  "
            f"{entry.epochs:3} epochs  {mark}".rstrip()
        )


def _reproduce(options: argparse.Namespace) -> None:
    import_keras()
    from training.commands.reproduce import reproduce

    reproduce(options)


def _audit(options: argparse.Namespace) -> None:
    import_keras()
    from training.commands.audit import audit

    print(audit(options))


def _evaluate(options: argparse.Namespace) -> None:
    import_keras()  # the page of its recipe does
    from training.commands import evaluate

    print(evaluate.report(options))


def _compare(options: argparse.Namespace) -> None:
    from training.commands import compare
    from training.evaluation import published

    one, other = (published.find(text, options.models) for text in options.versions)
    print(compare.table(one, other))
    if options.on_data:
        print(compare.on_data(one, other, data_dir=options.data_dir))


COMMANDS = {
    "list": _list,
    "train": train.train,
    "export": train.export,
    "evaluate": _evaluate,
    "reproduce": _reproduce,
    "compare": _compare,
    "audit": _audit,
}

if __name__ == "__main__":
    SIGTERM.listen()
    sys.exit(main())
