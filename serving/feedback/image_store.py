"""Keep a share of the predicted images in files, for when they are labelled. Off by default.

A thread writes the images; an image is skipped while too many wait. The folder is bounded in bytes
and days, plus what each worker writes between two clean-ups: at most a sixteenth. Files that no id
names are left alone. What cannot be written, as on a full disk, is counted and leaves no file.
"""

import asyncio
import logging
import os
import random
import re
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from serving.inference.images import pixels

logger = logging.getLogger(__name__)

PART = 16  # a worker also cleans up after writing this fraction of the folder's size
QUEUED = 16 * 1024 * 1024  # bytes waiting to be written
BLOCK = 4096  # bytes that a small file occupies on most disks
INTERVAL = 60.0  # seconds between two clean-ups, and between two log lines about failures
# The name of a kept image, or of one partly written.
_OURS = re.compile(r"\.?[0-9a-f]{28}(\.[a-z]+)?")


class ImageStore:
    """The folder of kept images, as one worker writes it."""

    def __init__(
        self,
        folder: Path,
        *,
        share: float,
        megabytes: int,
        days: float,
        count: Callable[[str], object] = str,
    ) -> None:
        """``count`` is called with the result of each drawn image: kept, skipped or failed."""
        self._folder, self.share, self._count = folder, share, count
        self._failed, self._reported_at = 0, -INTERVAL  # since the last log line; its time
        self._max_bytes, self._max_age = megabytes * 1_000_000, days * 86400
        self._queued, self._written = 0, 0  # bytes: waiting; written since the last clean-up
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="images")

    def offer(self, model: str, key: str, image: bytes) -> None:
        """Keep a predicted image under the key of its id, if it is drawn and few others wait."""
        if random.random() >= self.share:
            return
        if self._queued + len(image) > QUEUED:
            self._count("skipped")
            return
        self._queued += len(image)
        loop = asyncio.get_running_loop()
        keeping = loop.run_in_executor(self._thread, self._keep, model, key, image)
        keeping.add_done_callback(lambda _: self._dequeue(len(image)))

    def _dequeue(self, size: int) -> None:
        self._queued -= size

    def _keep(self, model: str, key: str, image: bytes) -> None:
        try:
            self._write(self._folder / model, key, image)
        except OSError as exc:  # a full disk must not stop predictions
            self._count("failed")
            self._report(exc)
            return
        self._count("kept")
        self._written += max(len(image), BLOCK)
        if self._written > self._max_bytes / PART:
            try:
                self.clean_up()
            except OSError as exc:
                self._report(exc)

    def _write(self, folder: Path, key: str, image: bytes) -> None:
        """Write an image, readable by its owner alone; leave nothing if it cannot be written."""
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = folder / f".{key}"
        try:
            with open(partial, "wb", opener=_private) as file:
                file.write(image)
            kind = pixels.file_format(image) or "bin"
            partial.replace(folder / f"{key}.{kind.lower().replace('jpeg', 'jpg')}")
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def _report(self, exc: OSError) -> None:
        """Log the failures since the last line, once in a while: each prediction may fail."""
        self._failed += 1
        if time.monotonic() >= self._reported_at + INTERVAL:
            extra = {"count": self._failed, "folder": str(self._folder), "reason": exc.strerror}
            logger.warning("images could not be kept", extra=extra)
            self._failed, self._reported_at = 0, time.monotonic()

    async def watch(self) -> None:
        """Clean up at intervals while images are kept; one worker per replica does so."""
        while self.share:
            try:
                await asyncio.to_thread(self.clean_up)
            except OSError:
                logger.exception("The folder of kept images could not be cleaned up.")
            await asyncio.sleep(INTERVAL)

    def clean_up(self) -> None:
        """Delete the images that are too old and, beyond the size, the oldest ones."""
        self._written, files = 0, []
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):  # renamed or deleted meanwhile
                status = path.lstat()
                if _OURS.fullmatch(path.name) and stat.S_ISREG(status.st_mode):
                    files.append((status.st_mtime, 512 * status.st_blocks, path))
        total = sum(size for _, size, _ in files)
        for changed, size, path in sorted(files):
            if total <= self._max_bytes and time.time() - changed <= self._max_age:
                break
            path.unlink(missing_ok=True)
            total -= size


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def find(folder: Path, model: str, key: str) -> Path | None:
    """Return the kept image of a prediction, if there is one."""
    return next((folder / model).glob(f"{key}.*"), None)
