"""Fetch a published data set: download, resume, check, unpack, put in place by one rename.

Knows HTTP and the file system; knows nothing of what the files hold. A cut download goes on where
it stopped, a cut extraction is never taken for a whole set, and two processes at once take turns.
"""

import hashlib
import http.client
import logging
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from training import lock
from training.data.extract import unpack
from training.data.progress import Progress
from training.errors import DataError, UsageError

_BLOCK = 1 << 18
_TEMPORARY = {408, 425, 429}  # and every 5xx
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A published file: its name, its SHA-256 and the addresses that have it, tried in turn."""

    file: str
    sha256: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Patience:
    """How long a download insists; a try that brought new bytes does not count."""

    tries: int = 5
    timeout: float = 30.0  # seconds without a byte
    pause: float = 1.0  # seconds after the first vain try, doubled after each


class _CutError(Exception):
    """The answer did not come, or not whole; another try may help."""


class _RefusedError(Exception):
    """The server will not give this file; another try will not help."""


def fetch(
    archives: tuple[Archive, ...],
    folder: Path,
    *,
    mirror: str | None = None,
    patience: Patience | None = None,
) -> None:
    """Download ``archives`` and make ``folder`` of them, unless another process was first.

    ``mirror`` is an address under which the same files lie; it replaces the published ones.

    Raises:
        DataError: no address has the files, they differ from what was published, or the disk is
            full or closed to us. What was received is kept for the next call.
    """
    archives = tuple(_from(mirror, archive) for archive in archives)
    downloads = folder.parent / ".downloads"
    with _writing(folder):
        downloads.mkdir(parents=True, exist_ok=True)
    with _alone(downloads / f"{folder.name}.lock"):
        if folder.is_dir():
            return
        files = [download(archive, downloads, patience=patience) for archive in archives]
        with _writing(folder):
            _install(files, folder)
            for file in files:
                file.unlink()


def download(archive: Archive, folder: Path, *, patience: Patience | None = None) -> Path:
    """Bring a published file into ``folder``, by way of ``<file>.part``, and check its SHA-256."""
    target, part = folder / archive.file, folder / f"{archive.file}.part"
    if not (target.is_file() and _sha256(target) == archive.sha256):
        for _ in range(2):
            _complete(archive, part, patience or Patience())
            found = _sha256(part)
            if found == archive.sha256:
                break
            # The published file changed under a resumed download, or bytes were damaged: once more.
            logger.warning("%s has the SHA-256 %s: fetched again", part, found)
            part.unlink()
        else:
            raise DataError(
                f"{archive.file} from {' and '.join(archive.addresses)} has the SHA-256 {found}. "
                f"Expected: {archive.sha256}."
            )
        with _writing(target):
            part.replace(target)
    return target


def _from(mirror: str | None, archive: Archive) -> Archive:
    if not mirror:
        return archive
    if not mirror.startswith(("http://", "https://")):
        raise UsageError(f"Cannot fetch from {mirror!r}. Expected: an http or https address.")
    return replace(archive, addresses=(f"{mirror.rstrip('/')}/{archive.file}",))


def _complete(archive: Archive, part: Path, patience: Patience) -> None:
    """Receive until a server says that the file is whole, from one address after the other."""
    addresses = list(archive.addresses)
    vain, furthest = 0, _size(part)
    while True:
        address = addresses.pop(0)
        try:
            _receive(address, part, patience.timeout)
        except _RefusedError as exc:
            logger.warning("%s: %s", address, exc)
            if not addresses:
                raise DataError(f"Cannot fetch {archive.file}: {address} {exc}.") from exc
            continue
        except _CutError as exc:
            addresses.append(address)
            vain = 0 if _size(part) > furthest else vain + 1
            furthest = max(furthest, _size(part))
            logger.warning("%s: %s after %s bytes", address, exc, f"{_size(part):,}")
            if vain >= patience.tries:
                raise DataError(
                    f"Cannot fetch {archive.file}: {address} {exc}; {vain} tries in a row in vain. "
                    f"{_kept(part)}The same command goes on. "
                    "DATA_DIR names a folder that has the data, DATA_MIRROR another address."
                ) from exc
            time.sleep(patience.pause * 2 ** max(vain - 1, 0))
            continue
        return


def _receive(address: str, part: Path, timeout: float) -> None:
    """Add to ``part`` what it lacks, or start it anew where the server cannot resume."""
    have = _size(part)
    headers = {"User-Agent": "convserve", "Range": f"bytes={have}-"}
    if not have:
        del headers["Range"]
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 (our own addresses)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            if response.status == http.HTTPStatus.OK:
                have = 0
            elif not _continues(response, have):
                part.unlink(missing_ok=True)
                raise _CutError("answered with another range than was asked for")
            _store(response, part, have)
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # nothing comes after what we have; its SHA-256 decides
        if exc.code in _TEMPORARY or exc.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _CutError(f"answered {exc.code} {exc.reason}") from exc
        raise _RefusedError(f"answered {exc.code} {exc.reason}") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise _CutError(f"failed ({getattr(exc, 'reason', None) or exc!r})") from exc


def _continues(response: http.client.HTTPResponse, have: int) -> bool:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == have


def _store(response: http.client.HTTPResponse, part: Path, have: int) -> None:
    total = None if response.length is None else have + response.length
    with _writing(part):
        out = part.open("ab" if have else "wb", buffering=0)
    with out, Progress(part.stem, total, unit="B", done=have) as progress:
        while block := response.read(_BLOCK):
            have += len(block)
            rest = memoryview(block)
            while rest:
                with _writing(part):
                    rest = rest[out.write(rest) :]
            progress.advance(len(block))
    if total is not None and have < total:
        raise _CutError(f"closed the connection before byte {total:,}")


def _install(files: list[Path], folder: Path) -> None:
    """Unpack into a hidden sibling and rename it, so that ``folder`` exists only when whole."""
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    inside = staging / folder.name
    inside.mkdir(parents=True)
    try:
        for file in files:
            if file.name.endswith((".zip", ".tar.gz")):
                unpack(file, staging, only=folder.name)
            else:
                shutil.copyfile(file, inside / file.name)
        if not any(inside.iterdir()):
            raise DataError(f"{files[0].name} holds nothing under {folder.name}/.")
        inside.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a set; a process that ends, however it ends, gives it up."""
    with _writing(path):
        file = lock.take(
            path, waiting=f"{path}: another process is fetching this set; waiting for it"
        )
    with file:
        yield


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DataError(
            f"Cannot write {path}: {exc.strerror or exc}. Expected: a folder with room for the "
            "data; DATA_DIR names another. What was received is kept; the same command goes on."
        ) from exc


def _kept(part: Path) -> str:
    size = _size(part)
    return f"{size:,} bytes are kept in {part}. " if size else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
