"""``python -m serving``: load and self-test every published model, then become gunicorn.

A broken model or setting is told here, in a sentence, before any process is started. ``--check``
stops after the test and exits 0. ``tune`` measures which settings of the engine would gain;
``export-feedback`` writes what was labelled.
``--help`` prints the settings, which all come from the environment.
"""

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from serving import settings
from serving.errors import FeedbackUnavailable, ModelError, SettingsError
from serving.inference.models import repository, tune
from serving.inference.models.model import Model
from serving.inference.models.session import CUDA
from serving.server import launch, sockets

USAGE, BROKEN = 2, 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    told = _parser().parse_args(arguments)
    try:
        chosen = settings.Settings.from_environ(os.environ)
    except SettingsError as exc:
        print(f"serving: {exc}", file=sys.stderr)
        return USAGE
    if told.command == "tune":
        return _reported(lambda: print(tune.tune(chosen, seconds=told.seconds)))
    if told.command == "export-feedback":
        return _export(chosen, told)
    if told.check:
        return _check(chosen, tell=True)
    if code := _reported(lambda: sockets.check(chosen.bind)):
        return code
    return launch.serve(partial(_check, chosen), workers=chosen.workers)


def _check(chosen: settings.Settings, *, tell: bool = False) -> int:
    """Load and self-test all, and see that labels have an address; ``ON_GPU`` where some of it runs
    on one and nobody is told."""
    from serving.feedback import database  # a third of a second

    models: list[Model] = []

    def load() -> None:
        database.Store(chosen.feedback_url, replica=chosen.counts_as, worker=0).close()
        models.extend(repository.load(chosen))
        for model in models if tell else ():
            print(f"{model}: sound")

    code = _reported(load)
    return launch.ON_GPU if not tell and any(model.provider == CUDA for model in models) else code


def _reported(work: Callable[[], None]) -> int:
    """The exit code; what is wrong with a model or a setting is told in a sentence."""
    try:
        work()
    except SettingsError as exc:
        print(f"serving: {exc}", file=sys.stderr)
        return USAGE
    except ModelError as exc:
        print(f"serving: {exc}", file=sys.stderr)
        return BROKEN
    return 0


def _export(chosen: settings.Settings, told: argparse.Namespace) -> int:
    from serving.feedback import export

    def write() -> None:
        wanted = {"out": told.out, "images": told.images, "model": told.model, "since": told.since}
        print(f"serving: {export.export(chosen, **wanted)}", file=sys.stderr)

    try:
        return _reported(write)
    except FeedbackUnavailable as exc:
        reason = getattr(exc.__cause__, "orig", exc.__cause__)  # without the statement
        print(f"serving: {exc} {reason}", file=sys.stderr)
        return BROKEN
    except BrokenPipeError:  # who reads has enough; Python would complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN
    except OSError as exc:
        print(
            f"serving: {exc.filename or 'The table'} cannot be written: {exc.strerror}.",
            file=sys.stderr,
        )
        return BROKEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve the published models over HTTP. Settings come from the environment.",
        epilog=settings.table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check", action="store_true", help="load and self-test every model, then exit"
    )
    commands = parser.add_subparsers(dest="command", metavar="tune | export-feedback")
    tuning = commands.add_parser("tune", help="measure which settings would gain on this machine")
    tuning.add_argument(
        "--seconds", type=float, default=60.0, metavar="N", help="to measure for (default: 60)"
    )
    labels = commands.add_parser("export-feedback", help="write what was labelled as CSV")
    labels.add_argument("--out", type=Path, metavar="FILE", help="(default: standard output)")
    labels.add_argument(
        "--images", type=Path, metavar="DIR", help="copy kept images to DIR/<model>/<label>/"
    )
    labels.add_argument("--model", metavar="NAME", help="of this model alone")
    labels.add_argument(
        "--since", type=_moment, metavar="WHEN", help="labelled since then, like 2026-01-31"
    )
    return parser


def _moment(text: str) -> datetime:
    """A time in ISO 8601; one without a zone is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        told = f"{text!r} is no date. Expected one like 2026-01-31 or 2026-01-31T18:00."
        raise argparse.ArgumentTypeError(told) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
