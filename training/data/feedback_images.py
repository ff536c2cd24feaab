"""Add labelled feedback images to the training split of a data set, and to no other split.

The layout is ``<label>/<file>`` in ``DIR/<model>`` if that folder exists, as the service's export
writes it, else in ``DIR`` itself. Files beside the folders of labels, and names that start with a
dot, are ignored.

Knows that layout and which images fit a model; knows nothing of feedback or of serving.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data import pixels
from training.data.datasets import Dataset
from training.data.formats import read_file
from training.data.progress import progress
from training.data.splits import Split, by_hash, content_hash
from training.errors import DataError, UnreadableImage, UsageError, translated

log = logging.getLogger(__name__)

UNREADABLE = "not a readable image"
OTHER_DIGIT = "not 28×28 and light on dark, as training requires of digits"
HELD_OUT = "pixels occur in test or validation"

_BLACK = 16  # of `models/README.md`: half of a digit's border is at most that


def find(folder: Path, *, model: str, labels: Sequence[str]) -> list[tuple[Path, int]]:
    """List the files of a model, each with the index of its label.

    Raises:
        UsageError: if the folder does not exist.
        DataError: if a folder in it has the name of no label, or if it holds no file or cannot be
            listed.
    """
    with translated(DataError, f"Cannot list {folder}", "Expected: images."):
        if not folder.is_dir():
            raise UsageError(f"No folder {folder}. Expected: images in {folder}/<label>/.")
        place = folder / model if (folder / model).is_dir() else folder
        folders = [path for path in _visible(place) if path.is_dir()]
        if unknown := [path.name for path in folders if path.name not in labels]:
            raise DataError(
                f"{place} has a folder {unknown[0]!r}, which is not a label of {model}. "
                f"Expected: {', '.join(labels)}."
            )
        files = [(file, labels.index(each.name)) for each in folders for file in _visible(each)]
    if not files:
        raise DataError(f"No image in {place}. Expected: {place}/<label>/<file>.")
    return files


def add(data: Dataset, folder: Path, *, model: str, fit: str) -> Dataset:
    """Read the images of ``find`` by the pixel policy ``fit`` and add them to the training split.

    An image that cannot be read or used, or that is held out, is left out and noted. Raise the
    errors of ``find``, and ``DataError`` if no image can be added.
    """
    files = find(folder, model=model, labels=data.labels)
    held_out = {_digest(image) for part in (data.validation, data.test) for image in part.images}
    size = data.train.images.shape[1:3]
    added: list[tuple[NDArray[np.uint8], int]] = []
    left_out = Counter[str]()
    with pixels.quiet_exif(), progress(f"decoding {folder}", len(files), unit="image") as advance:
        for path, label in files:
            image, reason = _fitted(read_file(path), size, fit=fit, held_out=held_out)
            if image is None:
                log.info("left out %s: %s", path, reason)
                left_out[reason] += 1
            else:
                added.append((image, label))
            advance(1)
    skipped = sorted(left_out.items())
    notes = [f"Extra images left out: {count:,} ({reason})." for reason, count in skipped]
    if not added:
        raise DataError(f"No image in {folder} can be added. {' '.join(notes)}")
    return _joined(data, added, [f"Extra images added to train: {len(added):,}.", *notes])


def _fitted(
    file: bytes, size: tuple[int, ...], *, fit: str, held_out: Collection[bytes]
) -> tuple[NDArray[np.uint8] | None, str]:
    """Return the image at the model's size, or None and the reason."""
    try:
        decoded = pixels.decode(file)
    except UnreadableImage:
        return None, UNREADABLE
    if fit == "digit":
        grey = np.asarray(decoded.convert("L"))
        if grey.shape != size or not _light_on_dark(grey):
            return None, OTHER_DIGIT
        image = grey[..., np.newaxis]
    else:
        image = pixels.resize(decoded, (size[0], size[1]))
    return (None, HELD_OUT) if _digest(image) in held_out else (image, "")


def _light_on_dark(grey: NDArray[np.uint8]) -> bool:
    border = np.concatenate((grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]))
    return bool(np.mean(border <= _BLACK) >= 0.5)


def _joined(
    data: Dataset, added: Sequence[tuple[NDArray[np.uint8], int]], notes: Sequence[str]
) -> Dataset:
    """Append the images in the order of their hashes, which is independent of the file names."""
    images, labels = zip(*added, strict=True)
    extra = by_hash(Split(np.stack(images), np.array(labels, np.int64)))
    whole = f"{data.content_hash} {content_hash({'extra': extra})}"
    return replace(
        data,
        train=Split.joined(data.train, extra.split),
        content_hash=hashlib.sha256(whole.encode()).hexdigest(),
        notes=(*data.notes, *notes),
        extra=len(added),
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
