"""``python -m serving``: load and self-test every published model, then become gunicorn.

A broken model or setting is told here, in a sentence, before any process is started. ``--check``
stops after the test and exits 0. ``tune`` measures which settings of the engine would gain.
``--help`` prints the settings, which all come from the environment.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from serving import repository, run, settings, tune
from serving.errors import ModelError
from serving.session import CUDA, Options

USAGE, BROKEN = 2, 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; does not return when it becomes the service."""
    told = _parser().parse_args(arguments)
    try:
        chosen = settings.Settings.from_environ(os.environ)
    except settings.SettingsError as exc:
        print(f"serving: {exc}", file=sys.stderr)
        return USAGE
    try:
        if told.command == "tune":
            print(tune.tune(chosen, seconds=told.seconds))
            return 0
        models = repository.load(
            chosen.models, options=Options.of(chosen), max_pixels=chosen.max_pixels
        )
    except ModelError as exc:
        print(f"serving: {exc}", file=sys.stderr)
        return BROKEN
    if not told.check:
        if not chosen.workers and any(model.provider == CUDA for model in models):
            os.environ["CONVSERVE_WORKERS"] = "1"  # several would only share the GPU's memory
        _become_gunicorn()
    for model in models:
        print(f"{model}: sound")
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
    commands = parser.add_subparsers(dest="command", metavar="tune")
    tuning = commands.add_parser("tune", help="measure which settings would gain on this machine")
    tuning.add_argument(
        "--seconds", type=float, default=60.0, metavar="N", help="to measure for (default: 60)"
    )
    return parser


def _become_gunicorn() -> NoReturn:
    """Replace this process, and with it the sessions of the check: none is ever forked."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(run.made())
    configuration = Path(__file__).with_name("gunicorn.conf.py")
    os.execv(  # noqa: S606
        sys.executable, [sys.executable, "-m", "gunicorn", "--config", str(configuration)]
    )


if __name__ == "__main__":
    sys.exit(main())
