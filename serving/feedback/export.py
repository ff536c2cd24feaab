"""``python -m serving export-feedback``: what was labelled, as a table, and the kept images of it.

Knows CSV, the database and the folder of kept images; knows nothing of HTTP.
"""

import csv
import shutil
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from serving.errors import SettingsError
from serving.feedback import image_store
from serving.feedback.labels import Label
from serving.settings import Settings

COLUMNS = (
    *("id", "model", "version", "predicted", "confidence"),
    *("label", "source", "predicted_at", "labelled_at"),
)


def export(
    settings: Settings,
    *,
    out: Path | None = None,
    images: Path | None = None,
    model: str | None = None,
    since: datetime | None = None,
) -> str:
    """Write all labels to ``out``, or to standard output, and their images into
    ``images/<model>/<label>/``; a sentence that says how many.

    Raises:
        FeedbackUnavailable: the database is away.
        OSError: a file cannot be written.
        SettingsError: there is no such database.
    """
    from serving.feedback.database import Store

    store = Store(settings.feedback_url, replica=settings.counts_as, worker=0)
    if store.missing:
        raise SettingsError(f"CONVSERVE_FEEDBACK_URL is {store.name!r}, and there is no such file.")
    count = found = 0
    with ExitStack() as opened:
        file = opened.enter_context(out.open("w", newline="", encoding="utf-8")) if out else None
        table = csv.writer(file or sys.stdout)
        table.writerow(COLUMNS)
        for label in store.all(model=model, since=since.timestamp() if since else 0.0):
            table.writerow(_row(label))
            count += 1
            found += images is not None and _copied(settings.keep_folder, images, label)
    return f"{count} labels" + (f", {found} images of them" if images else "")


def _row(label: Label) -> list[str | int | float]:
    told = vars(label) | {
        "confidence": f"{label.confidence:.6f}",
        "predicted_at": _clock(label.predicted_at),
        "labelled_at": _clock(label.labelled_at),
    }
    return [told[column] for column in COLUMNS]


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _copied(folder: Path, images: Path, label: Label) -> bool:
    path = image_store.found(folder, label.model, label.id)
    if path is None or label.label in {"", ".", ".."} or Path(label.label).name != label.label:
        return False  # a label that names no folder of its own
    target = images / label.model / label.label
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target / path.name)
    return True
