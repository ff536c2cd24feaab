"""The published versions: which there are, and if their files are those that were published.

Knows nothing of what is in a model.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from serving.errors import ModelError
from serving.inference.models import routing

SUMS = "SHA256SUMS"

_NAME = re.compile(r"[a-z0-9_]+"), "lower-case letters, digits and underscores"
# Bounded, as whole numbers are in databases.
_VERSION = re.compile(r"[1-9][0-9]{0,8}"), "a positive integer without leading zeros"
_SUM = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<file>[^\\]+)")

# The name, the size and the time of the last change of each file of a version.
Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Published:
    """One scan of the folder of models; equal to a later scan if no file has changed."""

    versions: Mapping[str, Fingerprint] = field(default_factory=dict)  # by "<name>/<version>"
    errors: Mapping[str, str] = field(default_factory=dict)  # by path, "." for the folder itself
    routing: bytes = b"{}"

    def may_hide(self, key: str) -> bool:
        """Return True if a version may exist although the scan did not find it."""
        return not self.errors.keys().isdisjoint({".", key.partition("/")[0], key})


def scan(folder: Path) -> Published:
    """Find everything published in ``folder``, and report what is unreadable, misnamed or a link
    out of it. Ignore files, hidden folders, and a model without a version: it is being
    published."""
    errors: dict[str, str] = {}
    versions = {
        version.relative_to(folder).as_posix(): _fingerprint(version)
        for model in _folders(folder, folder, *_NAME, errors)
        for version in _folders(folder, model, *_VERSION, errors)
    }
    if not versions and "." not in errors:
        errors["."] = f"No model is published in {folder}. Expected {folder}/<name>/<version>/."
    file, rules = folder / routing.FILE, b""
    try:
        check_link(file, folder)
        rules = file.read_bytes()
    except FileNotFoundError:
        rules = Published.routing
    except OSError as exc:
        errors[routing.FILE] = f"{file} cannot be read: {exc.strerror}."
    except ModelError as exc:
        errors[routing.FILE] = str(exc)
    return Published(versions, errors, rules)


def check_link(path: Path, root: Path) -> None:
    """Raise ModelError if ``path`` is a link out of ``root``, whose files are not published."""
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise ModelError(f"{path} is a link out of {root}. Expected files in that folder.")


def check_links(folder: Path, root: Path) -> None:
    """Raise ModelError if a file or folder of the version in ``folder`` is a link out of ``root``,
    the folder of all models."""
    for path in folder.rglob("*"):
        check_link(path, root)


def check_sums(folder: Path) -> None:
    """Compare every file of a version with its ``SHA256SUMS``, if it has one; raise ModelError if
    a file is missing, not listed, or not the one that was published."""
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return
    except ValueError as exc:
        raise ModelError(f"{folder / SUMS} is not text: {exc}.") from exc
    listed = {}
    for line in lines:
        found = _SUM.fullmatch(line)
        if found is None:
            raise ModelError(
                f"{folder / SUMS} has the line {line[:100]!r}. Expected '<64 hex digits>  <file>'."
            )
        listed[PurePosixPath(found["file"]).as_posix()] = found["sum"]
    present = {name: path for name, path in _files(folder) if name != SUMS}
    if strange := sorted(present.keys() ^ listed.keys()):
        problem = "is not listed in" if strange[0] in present else "is missing, but listed in"
        raise ModelError(f"{folder / strange[0]} {problem} {SUMS}.")
    for name, path in present.items():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != listed[name]:
                raise ModelError(f"{path} is not the file that was published: {SUMS} differs.")


def golden_images(version: Path) -> list[Path]:
    """Return the golden images in the folder of a version, sorted."""
    return sorted((version / "golden").glob("*.png"))


def golden_label(image: Path) -> str:
    """Return the label in the name of a golden image, ``<label>-<n>.png``."""
    return image.stem.rpartition("-")[0]


def _folders(
    root: Path, parent: Path, pattern: re.Pattern[str], expected: str, errors: dict[str, str]
) -> Iterator[Path]:
    """Yield the folders in ``parent`` that are named right; note every other one in ``errors``."""
    try:
        paths = sorted(parent.iterdir())
    except OSError as exc:
        where = parent.relative_to(root).as_posix()
        errors[where] = f"The folder {parent} cannot be read: {exc.strerror}."
        return
    for path in paths:
        is_folder = path.is_dir() or not path.exists()  # a broken link is broken, not absent
        if path.name.startswith(".") or not is_folder:
            continue
        try:
            check_link(path, root)
            if not pattern.fullmatch(path.name):
                raise ModelError(f"{path} is not a valid name. Expected {expected}.")
        except ModelError as exc:
            errors[path.relative_to(root).as_posix()] = str(exc)
        else:
            yield path


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Return every file of a version that is not hidden, by its name in it, sorted."""
    found = ((path.relative_to(folder), path) for path in folder.rglob("*"))
    return sorted(
        (name.as_posix(), path)
        for name, path in found
        if not any(part.startswith(".") for part in name.parts) and not path.is_dir()
    )


def _fingerprint(folder: Path) -> Fingerprint:
    """Return the fingerprint of a version; its times are ctimes, which a change of mode moves."""
    try:
        stats = [(name, path.stat()) for name, path in _files(folder)]
    except OSError as exc:
        return ((str(exc), 0, 0),)
    return tuple((name, stat.st_size, stat.st_ctime_ns) for name, stat in stats)
