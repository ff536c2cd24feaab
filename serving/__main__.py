"""``python -m serving``: load and self-test every published model, then become gunicorn.

A broken model or setting is told here, in a sentence, before any process is started. ``--check``
stops after the test and exits 0.
``--help`` prints the settings, which all come from the environment.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from serving import repository, settings, versions
from serving.errors import ModelError

USAGE, BROKEN = 2, 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; does not return when it becomes the service."""
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve the published models over HTTP. Settings come from the environment.",
        epilog=settings.table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check", action="store_true", help="load and self-test every model, then exit"
    )
    check = parser.parse_args(arguments).check
    try:
        chosen = settings.Settings.from_environ(os.environ)
    except settings.SettingsError as exc:
        print(f"serving: {exc}", file=sys.stderr)
        return USAGE
    try:
        models = repository.load(
            chosen.models, intra_threads=chosen.intra_threads, max_pixels=chosen.max_pixels
        )
    except ModelError as exc:
        print(f"serving: {exc}", file=sys.stderr)
        return BROKEN
    if not check:
        _become_gunicorn(chosen.models / model.name / str(model.version) for model in models)
    for model in models:
        print(f"{model}: sound")
    return 0


def _become_gunicorn(published: Iterable[Path]) -> NoReturn:
    """Replace this process, and with it the sessions of the check: none is ever forked."""
    run = _run_folder()
    versions.link(published, run / versions.FIRST)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(run)
    configuration = Path(__file__).with_name("gunicorn.conf.py")
    os.execv(  # noqa: S606
        sys.executable, [sys.executable, "-m", "gunicorn", "--config", str(configuration)]
    )


def _run_folder() -> Path:
    """A new folder in memory: what an earlier run counted must not be counted again."""
    memory = Path("/dev/shm")  # noqa: S108
    return Path(
        tempfile.mkdtemp(prefix="convserve-", dir=memory if os.access(memory, os.W_OK) else None)
    )


if __name__ == "__main__":
    sys.exit(main())
