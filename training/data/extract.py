"""Unpack a zip or tar archive that may be hostile or damaged.

Knows archives only. Writes plain files under one named folder: no path out of it, no link, no
device, no owner, no mode, no file twice, and no more bytes than a limit.
"""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from training.errors import DataError

_LIMIT = 4 << 30  # bytes unpacked; the largest published set has less than one GiB
_DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,  # zipfile, of an encrypted member; NotImplementedError, of an unknown method
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)


def unpack(archive: Path, into: Path, *, only: str, limit: int = _LIMIT) -> None:
    """Extract the files of ``archive`` under the folder ``only`` to ``into/only``. Raise
    ``DataError`` if a member is not a plain file or folder, leads outside or occurs twice, if the
    members together exceed ``limit`` bytes, or if the archive is damaged."""
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                infos = zipped.infolist()
                _check(archive, ((m.filename, m.file_size, _plain(m)) for m in infos), limit)
                wanted = [m for m in infos if _within(only, m.filename)]
                zipped.extractall(into, wanted)  # noqa: S202 - checked above
        else:
            with tarfile.open(archive) as tarred:
                members = tarred.getmembers()
                _check(archive, ((m.name, m.size, m.isreg() or m.isdir()) for m in members), limit)
                inside = (m for m in members if _within(only, m.name))
                plain = [m.replace(mode=None, deep=False) for m in inside]  # type: ignore[arg-type]
                tarred.extractall(into, plain, filter="data")
    except _DAMAGED as exc:
        raise DataError(f"Cannot unpack {archive}: {exc}.") from exc


def _check(archive: Path, members: Iterable[tuple[str, int, bool]], limit: int) -> None:
    """Refuse an archive by the name, the size and the kind (True if plain) of a member."""
    total, seen = 0, set()
    for name, size, plain in members:
        path = PurePosixPath(name)
        if not plain or path.is_absolute() or ".." in path.parts or set("\\:") & set(name):
            raise DataError(
                f"{archive} holds {name!r}. Expected: plain files and folders inside it only."
            )
        if path in seen:
            raise DataError(f"{archive} holds {name!r} twice. Expected: each file once.")
        seen.add(path)
        total += size
        if total > limit:
            raise DataError(f"{archive} unpacks to more than {limit:,} bytes. Refused.")


def _plain(member: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if DOS or Windows made the archive
    return kind in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG)


def _within(folder: str, name: str) -> bool:
    return PurePosixPath(name).parts[:1] == (folder,)
