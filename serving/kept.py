"""A share of the images that were predicted, kept in files for when they are labelled.

Knows files; knows nothing of HTTP or of models. Off by default. Images are written in a thread;
what comes while too many wait is not kept. The folder holds at most so many bytes, for so many
days, as long as images are kept; files that are not named by an id are left alone.
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

logger = logging.getLogger(__name__)

WAITING = 16 * 1024 * 1024  # bytes that wait to be written
TIDY = 60.0  # seconds between two looks at what is too much or too old
# The name of an image, or of the part of one that was being written.
_OURS = re.compile(r"\.?[0-9a-f]{28}(\.[a-z]+)?")
_KINDS = {
    b"\x89PNG": "png",
    b"\xff\xd8": "jpg",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"RIFF": "webp",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
}


class Kept:
    """The folder of kept images, as one worker writes it."""

    def __init__(self, folder: Path, *, share: float, megabytes: int, days: float) -> None:
        self._folder, self.share = folder, share
        self._most, self._longest = megabytes * 1_000_000, days * 86400
        self._waiting = 0
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
            partial.replace(folder / f"{key}.{_kind(image)}")
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
        files = []
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


def _kind(image: bytes) -> str:
    return next((kind for start, kind in _KINDS.items() if image.startswith(start)), "bin")
