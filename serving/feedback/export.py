"""``python -m serving export-feedback``: write the labels as CSV, and copy their kept images."""

import csv
import shutil
import sys
from contextlib import nullcontext
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from serving.errors import SettingsError
from serving.feedback import image_store
from serving.feedback.database import Database
from serving.feedback.labels import Label
from serving.settings import Settings


def export(
    settings: Settings,
    *,
    out: Path | None = None,
    images: Path | None = None,
    model: str | None = None,
    since: datetime | None = None,
) -> str:
    """Write all labels to ``out``, or to standard output, and their images into
    ``images/<model>/<label>/``; return the counts in words.

    Raises:
        FeedbackUnavailable, SettingsError: if the database is unreachable, or does not exist.
        OSError: if a file cannot be written.
    """
    database = Database(settings.feedback_url, replica=settings.replica_name, worker=0)
    if database.missing:
        raise SettingsError(f"CONVSERVE_FEEDBACK_URL is {database.name!r}. No such file exists.")
    count = copied = 0
    opened = out.open("w", newline="", encoding="utf-8") if out else nullcontext(sys.stdout)
    with opened as file:
        table = csv.writer(file)
        table.writerow(each.name for each in fields(Label))
        for label in database.all(model=model, since=since.timestamp() if since else 0.0):
            written = {
                "confidence": f"{label.confidence:.6f}",
                "predicted_at": _clock(label.predicted_at),
                "labelled_at": _clock(label.labelled_at),
            }
            table.writerow((vars(label) | written).values())
            count += 1
            copied += images is not None and _copy(settings.keep_folder, images, label)
    return f"{count} labels" + (f", {copied} of them with an image" if images else "")


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _copy(folder: Path, images: Path, label: Label) -> bool:
    """Copy the image of a label, if one was kept; return True if it was copied."""
    path = image_store.find(folder, label.model, label.id)
    if path is None or label.label in {"", ".", ".."} or Path(label.label).name != label.label:
        return False  # the label is a path, not a name for a folder
    target = images / label.model / label.label
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target / path.name)
    return True
