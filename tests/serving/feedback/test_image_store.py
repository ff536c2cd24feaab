"""A share of the images is kept in files until they are labelled."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.app import create_app
from serving.feedback import image_store as module
from serving.feedback.image_store import ImageStore, find
from serving.settings import Settings
from tests.serving.conftest import KEY
from tests.serving.running import ROOT
from tests.serving.samples import png
from tests.serving.waiting import until


def offer(store: ImageStore, *images: tuple[str, bytes]) -> None:
    async def all_of_them() -> None:
        for key, image in images:
            store.offer("shade", key, image)
        await asyncio.to_thread(store._thread.shutdown)

    asyncio.run(all_of_them())


def test_an_image_is_found_by_the_key_of_its_id(tmp_path: Path) -> None:
    offer(
        ImageStore(tmp_path, share=1, megabytes=1, days=1), ("a1", png(9)), ("b2", b"\xff\xd8\xff")
    )
    path = find(tmp_path, "shade", "a1")
    assert path == tmp_path / "shade/a1.png"
    assert path.read_bytes() == png(9)
    assert find(tmp_path, "shade", "b2") == tmp_path / "shade/b2.jpg"
    assert find(tmp_path, "shade", "c3") is None


def test_a_share_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([0.1, 0.6, 0.49, 0.5])
    monkeypatch.setattr("serving.feedback.image_store.random.random", lambda: next(drawn))
    images = [(str(number), png(number)) for number in range(4)]
    offer(ImageStore(tmp_path, share=0.5, megabytes=1, days=1), *images)
    assert {path.stem for path in tmp_path.glob("*/*")} == {"0", "2"}


def test_the_oldest_images_are_deleted_beyond_the_size_or_the_days(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, share=1, megabytes=1, days=2)
    for age in range(4):
        old(tmp_path / f"shade/{age:028x}.png", 400_000 if age < 3 else 10, days=0.9 * age)
    store.clean_up()
    assert {path.stem for path in tmp_path.glob("*/*")} == {f"{age:028x}" for age in (0, 1)}


def test_files_of_other_names_stay(tmp_path: Path) -> None:
    names = {"holiday.jpg", f"{7:029x}.png", f"{10:028X}.png"}
    (tmp_path / f"shade/{11:028x}").mkdir(parents=True)  # a folder
    for name in (*names, f"{8:028x}.jpg", f".{9:028x}"):  # an image, and what a killed worker left
        old(tmp_path / "shade" / name, 2_000_000, days=9)
    ImageStore(tmp_path, share=0, megabytes=1, days=2).clean_up()
    assert {path.name for path in tmp_path.glob("*/*")} == names | {f"{11:028x}"}


def test_the_folder_is_cleaned_up_while_images_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    failed, remove = 0, Path.unlink

    async def watched(store: ImageStore) -> None:
        await asyncio.wait_for(store.watch(), None if store.share else 60)

    def refused(path: Path, **_: object) -> None:
        nonlocal failed
        failed += 1
        if failed == 1:
            raise PermissionError
        remove(path)

    async def both() -> None:
        left = old(tmp_path / f"shade/{1:028x}.png", 10, days=9)
        await watched(ImageStore(tmp_path, share=0, megabytes=1, days=2))
        assert left.exists()
        watching = asyncio.create_task(watched(ImageStore(tmp_path, share=1, megabytes=1, days=2)))
        await asyncio.to_thread(until, lambda: not left.exists())
        watching.cancel()

    monkeypatch.setattr(Path, "unlink", refused)
    asyncio.run(both())
    assert "could not be cleaned up" in caplog.text


def test_what_a_worker_writes_between_two_clean_ups_is_bounded(tmp_path: Path) -> None:
    store = ImageStore(tmp_path, share=1, megabytes=1, days=1)
    image = b"\x89PNG" + bytes(30_000)
    offer(store, *[(f"{number:028x}", image) for number in range(100)])
    held = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    assert 900_000 < held < 1_000_000 * (1 + 1 / module.PART)
    assert find(tmp_path, "shade", f"{99:028x}") is not None  # the oldest was deleted


def old(path: Path, size: int, *, days: float) -> Path:
    """Write a file of that age."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    changed = time.time() - 86400 * days
    os.utime(path, (changed, changed))
    return path


def test_a_folder_that_cannot_be_written_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    offer(ImageStore(tmp_path / "file", share=1, megabytes=1, days=1), ("a1", png(9)))
    assert "could not be kept" in caplog.text


FULL = """
import asyncio, logging, resource, sys
from pathlib import Path
from serving.feedback.image_store import ImageStore
logging.basicConfig(format="%(message)s %(count)s %(reason)s")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as on a full disk, but for the code
results = []
store = ImageStore(Path(sys.argv[1]), share=1, megabytes=1, days=1, count=results.append)
async def offer():
    for number in range(50):
        store.offer("shade", f"{number:028x}", bytes(900 if number == 7 else 2000))
    await asyncio.to_thread(store._thread.shutdown)
asyncio.run(offer())
print(results.count("kept"), results.count("failed"))
"""


def test_what_a_full_disk_refuses_leaves_no_file_and_one_log_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "kept"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == ["1", "49"]
    assert ended.stderr == "images could not be kept 1 File too large\n"
    assert [path.name for path in tmp_path.rglob("*.*")] == [f"{7:028x}.bin"]


def test_failures_are_logged_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = ImageStore(tmp_path / "file", share=1, megabytes=1, days=1)
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for after in (0, 1, 59, 61, 120):
        now = 100.0 + after
        store._keep("shade", "a1", png(9))
    assert [vars(each)["count"] for each in caplog.records] == [1, 3]


def test_a_kept_image_is_its_owners_alone(tmp_path: Path) -> None:
    offer(ImageStore(tmp_path / "kept", share=1, megabytes=1, days=1), ("a1", png(9)))
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")}
    assert found == {"kept": "0o700", "shade": "0o700", "a1.png": "0o600"}


def test_images_are_skipped_while_too_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUED", len(png(1)))
    results: list[str] = []
    store = ImageStore(tmp_path, share=1, megabytes=1, days=1, count=results.append)
    offer(store, ("a1", png(1)), ("b2", png(1)))
    assert {path.stem for path in tmp_path.glob("*/*")} == {"a1"}
    assert sorted(results) == ["kept", "skipped"]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_service_keeps_predicted_images_if_configured(
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
