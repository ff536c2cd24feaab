"""Which versions are published, and whether their files are those that were published.

Knows folders and files, and ``sha256sum``'s format; knows nothing of what is in a model.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from serving.inference.models import routing
from serving.errors import ModelError

SUMS = "SHA256SUMS"

_NAME = re.compile(r"[a-z0-9_]+")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")  # as databases have whole numbers
_SUM = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<file>[^\\]+)")

# The name, the size and the time of the last change of each file of a version.
Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Published:
    """What was found at one moment; what is found later is equal where no file has changed."""

    versions: Mapping[str, Fingerprint] = field(default_factory=dict)  # by "<name>/<version>"
    wrong: Mapping[str, str] = field(default_factory=dict)  # by path, "." the whole: a sentence
    routing: bytes = b"{}"

    def hides(self, key: str) -> bool:
        """Whether a version may be there, though it was not found."""
        return not self.wrong.keys().isdisjoint({".", key.partition("/")[0]})


def scan(folder: Path) -> Published:
    """All that is published in ``folder``; what cannot be read or is misnamed is told, too.

    Files, and folders whose name starts with a dot, do not exist for serving. Neither does a model
    that has no version yet: it is being published.
    """
    wrong: dict[str, str] = {}
    found: dict[str, Fingerprint] = {}
    for model in _folders(folder, folder, _NAME, wrong):
        for version in _folders(folder, model, _VERSION, wrong):
            found[version.relative_to(folder).as_posix()] = _fingerprint(version)
    if not found and "." not in wrong:
        wrong["."] = f"No model is published in {folder}. Expected {folder}/<name>/<version>/."
    try:
        rules = (folder / routing.FILE).read_bytes()
    except FileNotFoundError:
        rules = Published.routing
    except OSError as exc:
        wrong[routing.FILE] = f"{folder / routing.FILE} cannot be read: {exc.strerror}."
        rules = b""
    return Published(found, wrong, rules)


def check_sums(folder: Path) -> None:
    """Compare every file of a version with its ``SHA256SUMS``, where it has one.

    Raises:
        ModelError: a file is missing, not listed, or another than the one that was published.
    """
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return
    except ValueError as exc:
        raise ModelError(f"{folder / SUMS} is no text: {exc}.") from exc
    listed = dict(_listed(folder, line) for line in lines)
    present = {name: path for name, path in _files(folder) if name != SUMS}
    if strange := sorted(present.keys() ^ listed.keys()):
        told = "is not listed in" if strange[0] in present else "is not there, but listed in"
        raise ModelError(f"{folder / strange[0]} {told} {SUMS}.")
    for name, path in present.items():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != listed[name]:
                raise ModelError(f"{path} is not the file that was published: {SUMS} differs.")


def _listed(folder: Path, line: str) -> tuple[str, str]:
    found = _SUM.fullmatch(line)
    if found is None:
        raise ModelError(
            f"{folder / SUMS} has the line {line[:100]!r}. Expected '<64 hex digits>  <file>'."
        )
    return PurePosixPath(found["file"]).as_posix(), found["sum"]


def _folders(
    root: Path, parent: Path, pattern: re.Pattern[str], wrong: dict[str, str]
) -> Iterator[Path]:
    try:
        folders = [
            path
            for path in sorted(parent.iterdir())
            if not path.name.startswith(".")
            and (path.is_dir() or not path.exists())  # a link to what is gone is broken, not absent
        ]
    except OSError as exc:
        told = f"The folder {parent} cannot be read: {exc.strerror}."
        wrong[parent.relative_to(root).as_posix()] = told
        return
    for path in folders:
        if pattern.fullmatch(path.name):
            yield path
        else:
            expected = "a positive integer without leading zeros"
            if pattern is _NAME:
                expected = "lower-case letters, digits and underscores"
            wrong[path.relative_to(root).as_posix()] = (
                f"{path} is not a valid name. Expected {expected}."
            )


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Every file of a version by its name in it, sorted; hidden ones do not exist."""
    found = ((path.relative_to(folder), path) for path in folder.rglob("*"))
    return sorted(
        (name.as_posix(), path)
        for name, path in found
        if not any(part.startswith(".") for part in name.parts) and not path.is_dir()
    )


def _fingerprint(folder: Path) -> Fingerprint:
    """The time is that of the last change, which a change of mode moves, too."""
    try:
        stats = [(name, path.stat()) for name, path in _files(folder)]
    except OSError as exc:
        return ((str(exc), 0, 0),)
    return tuple((name, stat.st_size, stat.st_ctime_ns) for name, stat in stats)
