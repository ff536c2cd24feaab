"""Fetch a published data set: download, resume, check, unpack, put in place by one rename.

Knows HTTP and the file system; knows nothing of what the files hold. pooch checks the SHA-256 and
renames a whole file into place; the downloader that it calls here resumes a cut transfer. A cut
extraction is never mistaken for a whole set; concurrent processes take turns.
"""

import logging
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pooch
import requests
import urllib3

from training import lock
from training.data.extract import unpack
from training.data.progress import progress
from training.errors import DataError, UsageError, translated

TRIES = 5  # failed attempts in a row; an attempt that received new bytes does not count
TIMEOUT = 30.0  # seconds without a byte
PAUSE = 1.0  # seconds after the first failed attempt, doubled after each

_BLOCK = 1 << 18
_TEMPORARY = {408, 425, 429}  # and every 5xx
_FAILED = (requests.RequestException, urllib3.exceptions.HTTPError)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A published file: its name, its SHA-256 and its addresses, tried in turn."""

    file: str
    sha256: str
    addresses: tuple[str, ...]


def fetch(archives: tuple[Archive, ...], folder: Path, *, mirror: str | None = None) -> None:
    """Download ``archives`` and make ``folder`` of them, unless another process has done so.

    ``mirror`` is an address that has the same files; it replaces the published addresses.

    Raises:
        UsageError: if ``mirror`` is not an http or https address.
        DataError: if no address has the files, if they differ from what was published, or if a
            folder cannot be written. Received bytes are kept for the next call.
    """
    if mirror:
        if not mirror.startswith(("http://", "https://")):
            raise UsageError(f"Cannot fetch from {mirror!r}. Expected: an http or https address.")
        base = mirror.rstrip("/")
        archives = tuple(replace(each, addresses=(f"{base}/{each.file}",)) for each in archives)
    downloads = folder.parent / ".downloads"
    path = downloads / f"{folder.name}.lock"
    with _writing(folder):
        downloads.mkdir(parents=True, exist_ok=True)
        held = lock.take(path, waiting=f"{path}: another process is fetching this set; waiting")
    with held:
        if folder.is_dir():
            return
        files = [download(archive, downloads) for archive in archives]
        with _writing(folder):
            _install(files, folder)
            for file in files:
                file.unlink()


def download(archive: Archive, folder: Path) -> Path:
    """Download a published file into ``folder`` by way of ``<file>.part``, and check its SHA-256;
    raise ``DataError`` as ``fetch`` does."""
    part = folder / f"{archive.file}.part"

    def receive(_address: str, output: str, _pooch: Any) -> None:
        _complete(archive, part)
        part.replace(output)

    for _ in range(2):  # the published file changed under a resumed part, or bytes were damaged
        try:
            with _writing(part):
                known = (archive.addresses[0], archive.sha256, archive.file, folder)
                return Path(pooch.retrieve(*known, downloader=receive))
        except ValueError as exc:  # of pooch: another SHA-256
            logger.warning("%s: another SHA-256 than published: %s", archive.file, exc)
    raise DataError(
        f"{archive.file} from {' and '.join(archive.addresses)} has the wrong SHA-256. "
        f"Expected: {archive.sha256}."
    )


def _complete(archive: Archive, part: Path) -> None:
    """Receive until an address reports the file to be whole, one address after the other."""
    addresses = list(archive.addresses)
    failed, furthest = 0, _size(part)
    while True:
        address = addresses.pop(0)
        try:
            _receive(address, part)
        except _FAILED as exc:
            logger.warning("%s after %s bytes: %s", address, f"{_size(part):,}", exc)
            if _temporary(exc):
                addresses.append(address)
                failed = 0 if _size(part) > furthest else failed + 1
                furthest = max(furthest, _size(part))
            if not addresses or failed >= TRIES:
                kept = f"{_size(part):,} bytes are kept in {part}. " if _size(part) else ""
                raise DataError(
                    f"Cannot fetch {archive.file}: {exc}. {kept}The same command resumes. "
                    "DATA_DIR names a folder that has the data, DATA_MIRROR another address."
                ) from exc
            time.sleep(PAUSE * 2 ** (failed - 1) if failed else 0)
        else:
            return


def _temporary(failure: Exception) -> bool:
    response = getattr(failure, "response", None)
    return response is None or response.status_code in _TEMPORARY or response.status_code >= 500


def _receive(address: str, part: Path) -> None:
    """Append to ``part`` what it lacks, or restart it if the server cannot resume."""
    have = _size(part)
    headers = {"User-Agent": "convserve", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={have}-"} if have else {}
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if have and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the part has every byte; its SHA-256 decides
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise requests.RequestException("the answer has another range than requested")
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as out,
            progress(part.stem, total, unit="B", done=have) as advance,
        ):
            while block := response.raw.read1(_BLOCK):  # a cut keeps what came before it
                out.write(block)
                advance(len(block))


def _install(files: list[Path], folder: Path) -> None:
    """Unpack into a hidden sibling and rename it, so that ``folder`` exists only when whole."""
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    inside = staging / folder.name
    inside.mkdir(parents=True)
    try:
        for file in files:
            if file.name.endswith((".zip", ".tar.gz")):
                logger.info("unpacking %s", file)
                unpack(file, staging, only=folder.name)
            else:
                shutil.copyfile(file, inside / file.name)
        if not any(inside.iterdir()):
            raise DataError(f"{files[0].name} holds nothing under {folder.name}/.")
        inside.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _writing(path: Path) -> AbstractContextManager[None]:
    expected = (
        "Expected: a folder with room for the data; DATA_DIR names another. Received bytes are "
        "kept; the same command resumes."
    )
    return translated(DataError, f"Cannot write {path}", expected)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
