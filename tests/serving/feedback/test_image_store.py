"""A share of the images, kept in files until they are labelled."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from serving.app import create_app
from serving.feedback import image_store as keeping
from serving.feedback.image_store import Kept, found
from serving.settings import Settings
from tests.serving.conftest import KEY
from tests.serving.samples import png
from tests.serving.waiting import until


def offer(kept: Kept, *images: tuple[str, bytes]) -> None:
    async def all_of_them() -> None:
        for key, image in images:
            kept.offer("shade", key, image)
        await asyncio.to_thread(kept._thread.shutdown)

    asyncio.run(all_of_them())


def test_an_image_is_found_by_the_key_of_its_id(tmp_path: Path) -> None:
    offer(Kept(tmp_path, share=1, megabytes=1, days=1), ("a1", png(9)), ("b2", b"\xff\xd8\xff"))
    path = found(tmp_path, "shade", "a1")
    assert path == tmp_path / "shade/a1.png"
    assert path.read_bytes() == png(9)
    assert found(tmp_path, "shade", "b2") == tmp_path / "shade/b2.jpg"
    assert found(tmp_path, "shade", "c3") is None


def test_a_share_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([0.1, 0.6, 0.49, 0.5])
    monkeypatch.setattr("serving.feedback.image_store.random.random", lambda: next(drawn))
    images = [(str(number), png(number)) for number in range(4)]
    offer(Kept(tmp_path, share=0.5, megabytes=1, days=1), *images)
    assert {path.stem for path in tmp_path.glob("*/*")} == {"0", "2"}


def test_what_is_too_much_or_too_old_goes(tmp_path: Path) -> None:
    kept = Kept(tmp_path, share=1, megabytes=1, days=2)
    for age in range(4):
        old(tmp_path / f"shade/{age:028x}.png", 400_000 if age < 3 else 10, days=0.9 * age)
    kept.tidy()
    assert {path.stem for path in tmp_path.glob("*/*")} == {f"{age:028x}" for age in (0, 1)}


def test_files_that_are_not_ours_stay(tmp_path: Path) -> None:
    names = {"holiday.jpg", f"{7:029x}.png", f"{10:028X}.png"}
    (tmp_path / f"shade/{11:028x}").mkdir(parents=True)  # a folder
    for name in (*names, f"{8:028x}.jpg", f".{9:028x}"):  # an image, and what a killed worker left
        old(tmp_path / "shade" / name, 2_000_000, days=9)
    Kept(tmp_path, share=0, megabytes=1, days=2).tidy()
    assert {path.name for path in tmp_path.glob("*/*")} == names | {f"{11:028x}"}


def test_the_folder_is_tidied_as_long_as_images_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeping, "TIDY", 0.0)
    failed, remove = 0, Path.unlink

    async def watched(kept: Kept) -> None:
        await asyncio.wait_for(kept.watch(), None if kept.share else 60)

    def refused(path: Path, **_: object) -> None:
        nonlocal failed
        failed += 1
        if failed == 1:
            raise PermissionError
        remove(path)

    async def both() -> None:
        left = old(tmp_path / f"shade/{1:028x}.png", 10, days=9)
        await watched(Kept(tmp_path, share=0, megabytes=1, days=2))
        assert left.exists()
        watching = asyncio.create_task(watched(Kept(tmp_path, share=1, megabytes=1, days=2)))
        await asyncio.to_thread(until, lambda: not left.exists())
        watching.cancel()

    monkeypatch.setattr(Path, "unlink", refused)
    asyncio.run(both())
    assert "could not be tidied" in caplog.text


def test_what_a_worker_writes_between_two_looks_is_bounded(tmp_path: Path) -> None:
    kept = Kept(tmp_path, share=1, megabytes=1, days=1)
    image = b"\x89PNG" + bytes(30_000)
    offer(kept, *[(f"{number:028x}", image) for number in range(100)])
    held = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    assert 900_000 < held < 1_000_000 * (1 + 1 / keeping.PART)
    assert found(tmp_path, "shade", f"{99:028x}") is not None  # the oldest went


def old(path: Path, size: int, *, days: float) -> Path:
    """A file that was written so long ago."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    changed = time.time() - 86400 * days
    os.utime(path, (changed, changed))
    return path


def test_a_folder_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    offer(Kept(tmp_path / "file", share=1, megabytes=1, days=1), ("a1", png(9)))
    assert "could not be kept" in caplog.text


def test_more_than_can_wait_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "WAITING", len(png(1)))
    offer(Kept(tmp_path, share=1, megabytes=1, days=1), ("a1", png(1)), ("b2", png(1)))
    assert {path.stem for path in tmp_path.glob("*/*")} == {"a1"}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_service_keeps_what_it_predicts_where_that_is_asked_for(
    models: Path, tmp_path: Path, share: float
) -> None:
    folder = tmp_path / "kept"
    client = create_app(
        Settings(models=models, feedback_keys=KEY, keep_images=share, keep_folder=folder)
    ).test_client()
    client.post("/predict/shade", data=png(240), content_type="image/png")
    if share:
        until(lambda: [path.read_bytes() for path in folder.glob("shade/*.png")] == [png(240)])
    assert folder.exists() == bool(share)
