import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from training.errors import PublishFailed
from training.publishing import versions


def test_the_next_version_is_the_highest_plus_one(tmp_path: Path) -> None:
    assert versions.next_version(tmp_path, "digits") == 1
    for name in ("1", "10", ".11.partial-1", "notes"):
        (tmp_path / "digits" / name).mkdir(parents=True)
    assert versions.next_version(tmp_path, "digits") == 11


def test_a_publication_appears_only_when_complete(tmp_path: Path) -> None:
    with versions.publication(tmp_path, "digits", 1) as folder:
        (folder / "model.onnx").write_bytes(b"graph")
        assert not (tmp_path / "digits" / "1").exists()
    assert (tmp_path / "digits/1/model.onnx").read_bytes() == b"graph"


def test_a_publication_has_the_sums_of_its_files(tmp_path: Path) -> None:
    with versions.publication(tmp_path, "digits", 1) as folder:
        (folder / "golden").mkdir()
        (folder / "golden" / "7-0.png").write_bytes(b"seven")
        (folder / "model.onnx").write_bytes(b"graph")
    published = tmp_path / "digits" / "1"
    files = ["golden/7-0.png", "model.onnx"]
    assert (published / "SHA256SUMS").read_text() == "".join(
        f"{hashlib.sha256((published / file).read_bytes()).hexdigest()}  {file}\n" for file in files
    )


def test_a_failed_publication_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with versions.publication(tmp_path, "digits", 1) as folder:
            (folder / "model.onnx").write_bytes(b"graph")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_published_version_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "digits" / "1").mkdir(parents=True)
    with (
        pytest.raises(PublishFailed, match="A published version never changes"),
        versions.publication(tmp_path, "digits", 1),
    ):
        pass
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1"]


def test_concurrent_publishers_of_one_model_get_different_versions(tmp_path: Path) -> None:
    def publish(_: int) -> int:
        with (
            versions.turn(tmp_path, "digits") as version,
            versions.publication(tmp_path, "digits", version) as folder,
        ):
            (folder / "model.onnx").write_bytes(b"graph")
        return version

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(publish, range(8))) == list(range(1, 9))
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_the_remains_of_a_killed_publisher_are_removed(tmp_path: Path) -> None:
    (tmp_path / "digits/.1.partial-17/golden").mkdir(parents=True)
    (tmp_path / ".digits.lock").touch()
    with versions.turn(tmp_path, "digits") as version:
        assert version == 1
        assert list((tmp_path / "digits").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "digits").write_bytes(b"a file where a folder should be")
    with (
        pytest.raises(PublishFailed, match="could not be written"),
        versions.publication(tmp_path, "digits", 1),
    ):
        pass


def test_the_version_that_holds_a_file_is_found_by_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "digits" / "12" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"graph")
    assert versions.holding(tmp_path, "digits", hashlib.sha256(b"graph").hexdigest()) == file.parent
    assert versions.holding(tmp_path, "digits", hashlib.sha256(b"other").hexdigest()) is None
    assert versions.holding(tmp_path, "digits", "") is None
    assert versions.holding(tmp_path / "elsewhere", "digits", versions.digest(file)) is None
