"""``python -m serving export-feedback`` writes a table of labels, and their images."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.__main__ import main
from serving.feedback.database import Database
from tests.serving.feedback.test_database import of
from tests.serving.running import ROOT


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONVSERVE_FEEDBACK_URL", f"sqlite:///{tmp_path}/labels.db")
    monkeypatch.setenv("CONVSERVE_KEEP_FOLDER", str(tmp_path / "kept"))
    database = Database(f"sqlite:///{tmp_path}/labels.db", replica="one", worker=0)
    database.write([of("a"), of("b", "1", labelled_at=1_800_000_000.0)])
    database.write([of("c", model="other")])
    (tmp_path / "kept/digits").mkdir(parents=True)
    (tmp_path / "kept/digits/b.png").write_bytes(b"pixels")
    return tmp_path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_label_is_a_row(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-feedback"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "serving: 3 labels\n"
    assert rows(printed.out)[0] == {
        "id": "a",
        "model": "digits",
        "version": "3",
        "predicted": "7",
        "confidence": "0.990000",
        "label": "7",
        "source": "user",
        "predicted_at": "2023-11-14T22:13:20+00:00",
        "labelled_at": "2023-11-14T22:15:00+00:00",
    }


def test_images_are_copied_into_folders_named_by_their_label(
    labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, images = labelled / "labels.csv", labelled / "extra"
    arguments = ["--out", str(out), "--images", str(images), "--model", "digits"]
    assert main(["export-feedback", *arguments, "--since", "2024-01-01"]) == 0
    assert capsys.readouterr().err == "serving: 1 labels, 1 of them with an image\n"
    assert [row["id"] for row in rows(out.read_text())] == ["b"]
    assert (images / "digits/1/b.png").read_bytes() == b"pixels"


@pytest.mark.parametrize("label", ["..", "a/b", "/etc"])
def test_a_label_that_is_a_path_is_not_followed(labelled: Path, label: str) -> None:
    (labelled / "kept/digits/d.png").write_bytes(b"pixels")
    Database(f"sqlite:///{labelled}/labels.db", replica="one", worker=0).write([of("d", label)])
    images = labelled / "extra"
    assert (
        main(["export-feedback", "--out", str(labelled / "all.csv"), "--images", str(images)]) == 0
    )
    assert [path.name for path in labelled.rglob("d.png")] == ["d.png"]


def test_what_cannot_be_read_or_written_is_reported(
    labelled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-feedback", "--out", str(labelled / "no/labels.csv")]) == 1
    assert "cannot be written: No such file or directory." in capsys.readouterr().err
    (labelled / "text.db").write_text("no database")
    monkeypatch.setenv("CONVSERVE_FEEDBACK_URL", f"sqlite:///{labelled}/text.db")
    assert main(["export-feedback"]) == 1
    assert (
        "The database of labels is unreachable. Try again later. file is not a database"
        in capsys.readouterr().err
    )
    monkeypatch.setenv("CONVSERVE_FEEDBACK_URL", f"sqlite:///{labelled}/none.db")
    assert main(["export-feedback"]) == 2
    assert "none.db'. No such file exists." in capsys.readouterr().err
    assert not (labelled / "none.db").exists()
    monkeypatch.setenv("CONVSERVE_FEEDBACK_URL", "postgresql+psycopg://user:secret@host:what/db")
    assert main(["export-feedback"]) == 2
    assert "secret" not in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["export-feedback", "--since", "yesterday"])
    assert "'yesterday' is not a date. Expected one like" in capsys.readouterr().err


def test_a_closed_pipe_ends_the_export_without_a_traceback(labelled: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "serving", "export-feedback"],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")
