"""``python -m serving``: load and self-test every published model, then become gunicorn.

A broken model or setting is reported here, in a sentence, before any process starts. Two commands,
``tune`` and ``export-feedback``, start no service.
"""

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from serving import settings
from serving.errors import FeedbackUnavailable, ModelError, SettingsError

BROKEN, USAGE = 1, 2  # exit codes


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    return _reported(lambda: _run(options, settings.Settings.from_environ(os.environ)))


def _reported(work: Callable[[], int]) -> int:
    """Return the exit code of ``work``; print an expected error as one sentence."""
    try:
        return work()
    except (SettingsError, ModelError) as exc:
        print(f"serving: {exc}", file=sys.stderr)
        return USAGE if isinstance(exc, SettingsError) else BROKEN
    except FeedbackUnavailable as exc:
        reason = getattr(exc.__cause__, "orig", exc.__cause__)  # without the SQL statement
        print(f"serving: {exc} {reason}", file=sys.stderr)
        return BROKEN
    except ModuleNotFoundError as exc:
        package = (exc.name or "serving").partition(".")[0]
        if package == "serving":
            raise
        extra = "Install the extra: pip install 'convserve[serve]'."
        print(f"serving: {package} is not installed. {extra}", file=sys.stderr)
        return USAGE


def _run(options: argparse.Namespace, chosen: settings.Settings) -> int:
    if options.command == "export-feedback":
        return _export(options, chosen)
    # Late, as ``--help`` works without the extra; before the fork, as both processes need it.
    from serving.inference.models import tune

    if options.command == "tune":
        print(tune.tune(chosen, seconds=options.seconds))
        return 0
    if os.environ.get("GUNICORN_CMD_ARGS"):  # would move the service or drop its engine unnoticed
        raise SettingsError(
            "GUNICORN_CMD_ARGS is set. Expected no such variable: the options of the service are"
            f" {settings.PREFIX} variables."
        )
    if options.check:
        return _check(chosen, verbose=True)
    from serving.server import launch, sockets

    sockets.check(chosen.bind)
    return launch.serve(lambda: _reported(lambda: _check(chosen)), workers=chosen.workers)


def _check(chosen: settings.Settings, *, verbose: bool = False) -> int:
    """Load and self-test all models and check the database URL; return ``ON_GPU`` if a model runs
    on a GPU, unless ``verbose``."""
    from serving.feedback.database import Database
    from serving.inference.models import repository
    from serving.inference.models.session import CUDA
    from serving.server.launch import ON_GPU

    Database(chosen.feedback_url, replica=chosen.replica_name, worker=0).close()
    models = list(repository.load(chosen))
    if verbose:
        print("".join(f"{model}: sound\n" for model in models), end="")
        return 0
    return ON_GPU if any(model.provider == CUDA for model in models) else 0


def _export(options: argparse.Namespace, chosen: settings.Settings) -> int:
    from serving.feedback import export

    wanted = {name: getattr(options, name) for name in ("out", "images", "model", "since")}
    try:
        exported = export.export(chosen, **wanted)
        sys.stdout.flush()  # here, where a closed pipe can be reported
        print(f"serving: {exported}", file=sys.stderr)
    except BrokenPipeError:  # the reader closed the pipe; Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN
    except OSError as exc:
        target = exc.filename or "The table"
        print(f"serving: {target} cannot be written: {exc.strerror}.", file=sys.stderr)
        return BROKEN
    return 0


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
    tuning = commands.add_parser("tune", help="measure which settings would help on this machine")
    tuning.add_argument(
        "--seconds", type=float, default=60.0, metavar="N", help="time to measure (default: 60)"
    )
    labels = commands.add_parser("export-feedback", help="write the recorded labels as CSV")
    labels.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    labels.add_argument(
        "--images", type=Path, metavar="DIR", help="copy kept images to DIR/<model>/<label>/"
    )
    labels.add_argument("--model", metavar="NAME", help="only labels of this model")
    labels.add_argument(
        "--since", type=_moment, metavar="TIME", help="only labels since then, like 2026-01-31"
    )
    return parser


def _moment(text: str) -> datetime:
    """Parse a time in ISO 8601; one without a zone is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a date. Expected one like 2026-01-31 or 2026-01-31T18:00."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
