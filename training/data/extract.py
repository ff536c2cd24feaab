"""Unpack a zip or tar archive that may be hostile or damaged.

Writes plain files under one named folder and nothing else: no path out of it, no link, no device,
no owner, no mode, no file twice, and no more bytes than a limit.
"""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from training.data.progress import Progress
from training.errors import DataError

_LIMIT = 4 << 30  # bytes unpacked; the largest published set has less than one GiB
_DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,  # zipfile, of an encrypted member; NotImplementedError, of a method it lacks
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_file: bool
    is_folder: bool
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, into: Path, *, only: str, limit: int = _LIMIT) -> None:
    """Write the files of ``archive`` that lie under the folder ``only`` to ``into/only``.

    Raises:
        DataError: a member is no plain file or folder, leads elsewhere or comes twice, the members
            together are larger than ``limit`` bytes, or the archive is damaged.
    """
    members = _zip_members if archive.suffix == ".zip" else _tar_members
    total = 0
    try:
        with Progress(f"unpacking {archive.name}", None, unit="file") as progress:
            for member in members(archive):
                path = _safe(member, archive)
                total += member.size
                if total > limit:
                    raise DataError(f"{archive} unpacks to more than {limit:,} bytes. Refused.")
                if member.is_file and path.parts[:1] == (only,):
                    _write(member, into / path)
                progress.advance(1)
    except _DAMAGED as exc:
        raise DataError(f"Cannot unpack {archive}: {exc}.") from exc


def _safe(member: _Member, archive: Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    leads_out = path.is_absolute() or ".." in path.parts or set("\\:\0") & set(member.name)
    if leads_out or not (member.is_file or member.is_folder):
        raise DataError(
            f"{archive} holds {member.name!r}. Expected: plain files and folders inside it only."
        )
    return path


def _write(member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() or BytesIO() as source, target.open("xb") as out:
        shutil.copyfileobj(source, out)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where DOS or Windows made the archive
            yield _Member(
                name=info.filename,
                size=info.file_size,
                is_file=kind in (0, stat.S_IFREG) and not info.is_dir(),
                is_folder=kind in (0, stat.S_IFDIR) and info.is_dir(),
                open=partial(file.open, info),
            )


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r|gz") as file:
        for info in file:
            yield _Member(
                name=info.name,
                size=info.size,
                is_file=info.isreg(),
                is_folder=info.isdir(),
                open=partial(file.extractfile, info),
            )
