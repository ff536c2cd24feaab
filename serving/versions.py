"""Which versions are published, and which of them the workers of one run load.

A run loads what was there when it began, or was reloaded: a folder of links. Without it a worker
that is replaced would find what was published meanwhile, half copied perhaps, and serve other
versions than its siblings. Knows folders and ``python -m serving --check``; knows no gunicorn, and
no onnxruntime, which must not be imported where workers are forked.
"""

import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from serving.errors import ModelError

logger = logging.getLogger(__name__)

FIRST = "models"  # the name, in the folder of a run, of the links that it begins with

_NAME = re.compile(r"[a-z0-9_]+")
_VERSION = re.compile(r"[1-9][0-9]*")


def scan(folder: Path) -> list[Path]:
    """The folders of all published versions.

    Files, and folders whose name starts with a dot, do not exist for serving. Neither does a model
    that has no version yet: it is being published.

    Raises:
        ModelError: the folder is missing, holds no version, or a name breaks the contract.
    """
    found = [
        version
        for model in _folders(folder, _NAME, "lower-case letters, digits and underscores")
        for version in _folders(model, _VERSION, "a positive integer without leading zeros")
    ]
    if not found:
        raise ModelError(f"No model is published in {folder}. Expected {folder}/<name>/<version>/.")
    return found


def _folders(parent: Path, pattern: re.Pattern[str], expected: str) -> list[Path]:
    try:
        inside = sorted(parent.iterdir())
    except OSError as exc:
        raise ModelError(f"The folder {parent} cannot be read: {exc.strerror}.") from exc
    folders = [
        path
        for path in inside
        if not path.name.startswith(".")
        and (path.is_dir() or not path.exists())  # a link to what is gone is broken, not absent
    ]
    for path in folders:
        if not pattern.fullmatch(path.name):
            raise ModelError(f"{path} is not a valid name. Expected {expected}.")
    return folders


def link(versions: Iterable[Path], to: Path) -> Path:
    """Make ``to`` a folder of models that holds exactly these versions, as links."""
    for version in versions:
        model = to / version.parent.name
        model.mkdir(parents=True, exist_ok=True)
        (model / version.name).symlink_to(version.resolve(), target_is_directory=True)
    return to


def renew(folder: Path, current: Path) -> Path:
    """Links to what ``folder`` holds now; ``current`` if anything there is broken.

    It is tested in a process of its own: the caller forks.
    """
    try:
        new = link(scan(folder), Path(tempfile.mkdtemp(prefix=f"{FIRST}-", dir=current.parent)))
    except (ModelError, OSError) as exc:
        problem = str(exc)
    else:
        tested = subprocess.run(
            [sys.executable, "-m", "serving", "--check"],
            env={**os.environ, "CONVSERVE_MODELS": str(new)},
            capture_output=True,
            text=True,
            check=False,
        )
        if tested.returncode == 0:
            return new
        problem = tested.stderr.strip() or f"The check ended with {tested.returncode}."
    logger.error("Nothing new is loaded; the versions served before stay. %s", problem)
    return current
