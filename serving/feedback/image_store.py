"""A share of the images that were predicted, kept in files for when they are labelled.

Knows files and how images begin; knows nothing of HTTP or of models. Off by default. Images are
written in a thread; what comes while too many wait is not kept. As long as images are kept, the
folder holds so many bytes and what each worker writes between two looks, a sixteenth of them at
most, for so many days. Files that are not named by an id are left alone.
"""

import asyncio
import logging
import random
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from serving.inference.images import pixels

logger = logging.getLogger(__name__)

PART = 16  # of the folder's size that a worker writes before it looks, too
WAITING = 16 * 1024 * 1024  # bytes that wait to be written
BLOCK = 4096  # bytes that a small file takes on most disks
TIDY = 60.0  # seconds between two looks at what is too much or too old
# The name of an image, or of the part of one that was being written.
_OURS = re.compile(r"\.?[0-9a-f]{28}(\.[a-z]+)?")


class Kept:
    """The folder of kept images, as one worker writes it."""

    def __init__(self, folder: Path, *, share: float, megabytes: int, days: float) -> None:
        self._folder, self.share = folder, share
        self._most, self._longest = megabytes * 1_000_000, days * 86400
        self._waiting, self._since = 0, 0  # bytes that wait, and that were written since a look
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kept")

    def offer(self, model: str, key: str, image: bytes) -> None:
        """An image that was predicted, under the key of its id."""
        if random.random() >= self.share or self._waiting + len(image) > WAITING:
            return
        self._waiting += len(image)
        keeping = asyncio.get_running_loop().run_in_executor(
            self._thread, self._keep, model, key, image
        )
        keeping.add_done_callback(lambda _: self._written(len(image)))

    def _written(self, size: int) -> None:
        self._waiting -= size

    def _keep(self, model: str, key: str, image: bytes) -> None:
        try:
            folder = self._folder / model
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{key}"
            partial.write_bytes(image)
            kind = pixels.file_format(image) or "bin"
            partial.replace(folder / f"{key}.{kind.lower().replace('jpeg', 'jpg')}")
            self._since += max(len(image), BLOCK)
            if self._since > self._most / PART:
                self.tidy()
        except OSError:  # a full disk stops no prediction
            logger.exception("An image could not be kept.")

    async def watch(self) -> None:
        """Tidy again and again, where images are kept; one worker is enough."""
        while self.share:
            try:
                await asyncio.to_thread(self.tidy)
            except OSError:
                logger.exception("The folder of kept images could not be tidied.")
            await asyncio.sleep(TIDY)

    def tidy(self) -> None:
        """Remove what is too old and, of what is too much, the oldest."""
        self._since, files = 0, []
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):  # it was being written
                about = path.lstat()
                if _OURS.fullmatch(path.name) and stat.S_ISREG(about.st_mode):
                    files.append((about.st_mtime, 512 * about.st_blocks, path))
        left = sum(size for _, size, _ in files)
        for changed, size, path in sorted(files):
            if left <= self._most and time.time() - changed <= self._longest:
                break
            path.unlink(missing_ok=True)
            left -= size


def found(folder: Path, model: str, key: str) -> Path | None:
    """The kept image of a prediction."""
    return next((folder / model).glob(f"{key}.*"), None)
