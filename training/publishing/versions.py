"""The folders of published versions, ``models/<name>/<version>``: number, lock, sums and rename.

Knows files only; knows nothing of what a version holds but its ``model.onnx``.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training import lock
from training.errors import PublishFailed


@contextmanager
def turn(models: Path, name: str) -> Iterator[int]:
    """Wait for other publishers of a model; yield the version reserved until the block ends. Raise
    ``PublishFailed`` if the folder cannot be written."""
    path = models / f".{name}.lock"
    try:
        models.mkdir(parents=True, exist_ok=True)
        file = lock.take(path, waiting=f"another process is publishing {name}; waiting for it")
    except OSError as exc:
        raise PublishFailed(f"{path} could not be written: {exc}.") from exc
    with file:
        for left in (models / name).glob(".*.partial-*"):  # of a killed process
            shutil.rmtree(left, ignore_errors=True)
        try:
            yield next_version(models, name)
        finally:
            path.unlink(missing_ok=True)


def next_version(models: Path, name: str) -> int:
    """Return the highest published version of a model, plus one."""
    folders = (models / name).iterdir() if (models / name).is_dir() else ()
    return max((int(folder.name) for folder in folders if folder.name.isdigit()), default=0) + 1


@contextmanager
def publication(models: Path, name: str, version: int) -> Iterator[Path]:
    """Yield a hidden folder to fill. When the block ends, add ``SHA256SUMS`` and rename the folder
    to ``models/<name>/<version>``; if the block fails, delete it. Raise ``PublishFailed`` if the
    version exists, or the folder cannot be written."""
    target = models / name / str(version)
    partial = target.with_name(f".{version}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            raise PublishFailed(f"{target} exists. A published version never changes.")
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        sums = "".join(
            f"{digest(each)}  {each.relative_to(partial).as_posix()}\n" for each in files
        )
        (partial / "SHA256SUMS").write_text(sums, "utf-8")
        _sync(partial)  # a machine that stops might keep the names alone
        partial.rename(target)
    except OSError as exc:
        raise PublishFailed(f"{target} could not be written: {exc}.") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            partial.parent.rmdir()  # a failed first version leaves no empty model behind


def holding(models: Path, name: str, sha256: str) -> Path | None:
    """Return the version of a model whose file has that SHA-256, if any."""
    files = (models / name).glob("[1-9]*/model.onnx") if sha256 else ()
    return next((file.parent for file in files if digest(file) == sha256), None)


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
