import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from training.data.extract import unpack
from training.errors import DataError

INSIDE = {"Set/a.bin": b"a", "Set/deep/b.bin": b"b" * 5000}


def tar_file(path: Path, *members: tarfile.TarInfo, files: dict[str, bytes] = INSIDE) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def zip_file(path: Path, files: dict[str, bytes] = INSIDE) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_only_the_named_folder_is_unpacked(tmp_path: Path, suffix: str) -> None:
    files = {**INSIDE, "readme.txt": b"r", "Other/c": b"c", "Settle/d": b"d"}
    path = tmp_path / f"set{suffix}"
    zip_file(path, files) if suffix == ".zip" else tar_file(path, files=files)
    unpack(path, tmp_path / "into", only="Set")
    assert tree(tmp_path / "into") == INSIDE


OUTSIDE = ["../evil", "Set/../../evil", "/evil", "Set\\..\\evil", "C:evil"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_outside_in_a_zip_is_refused(tmp_path: Path, name: str) -> None:
    path = zip_file(tmp_path / "set.zip", {"Set/a.bin": b"a", name: b"evil"})
    with pytest.raises(DataError, match="Expected: plain files"):
        unpack(path, tmp_path / "deep" / "into", only="Set")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_outside_in_a_tar_is_refused(tmp_path: Path, name: str) -> None:
    path = tar_file(tmp_path / "set.tar.gz", files={"Set/a.bin": b"a", name: b"evil"})
    with pytest.raises(DataError, match="Expected: plain files"):
        unpack(path, tmp_path / "deep" / "into", only="Set")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
    ids=["symlink", "hard link", "character device", "block device", "pipe"],
)
def test_a_special_file_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("Set/odd")
    member.type = kind
    member.linkname = "Set/a.bin"
    with pytest.raises(DataError, match="Set/odd"):
        unpack(tar_file(tmp_path / "set.tar.gz", member), tmp_path / "into", only="Set")
    assert not (tmp_path / "into" / "Set" / "odd").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("Set/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="Set/link"):
        unpack(tmp_path / "set.zip", tmp_path / "into", only="Set")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_larger_than_the_limit_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set{suffix}"
    zip_file(path) if suffix == ".zip" else tar_file(path)
    with pytest.raises(DataError, match="more than 5,000 bytes"):
        unpack(path, tmp_path / "into", only="Set", limit=5000)
    unpack(path, tmp_path / "enough", only="Set", limit=5001)


def test_a_duplicate_name_is_refused(tmp_path: Path) -> None:
    again = tarfile.TarInfo("Set/a.bin")
    again.size = 3
    with pytest.raises(DataError, match="twice"):
        unpack(tar_file(tmp_path / "set.tar.gz", again), tmp_path / "into", only="Set")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_archive_is_reported(tmp_path: Path, suffix: str, damage: str) -> None:
    noise = {"Set/noise": bytes(i * i % 251 for i in range(100_000))}
    path = tmp_path / f"set{suffix}"
    zip_file(path, noise) if suffix == ".zip" else tar_file(path, files=noise)
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "text": b"<html>"}[damage])
    with pytest.raises(DataError, match=f"Cannot unpack .*set{suffix}"):
        unpack(path, tmp_path / "into", only="Set")


def test_a_flipped_bit_in_a_zip_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Set/plain", bytes(1000))
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        unpack(path, tmp_path / "into", only="Set")


def test_unpacked_files_ignore_the_modes_of_the_archive(tmp_path: Path) -> None:
    member = tarfile.TarInfo("Set/run")
    member.mode = 0o4777
    unpack(tar_file(tmp_path / "set.tar.gz", member), tmp_path / "into", only="Set")
    assert (tmp_path / "into" / "Set" / "run").stat().st_mode & 0o7111 == 0


def test_an_empty_archive_unpacks_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "set.tar.gz"
    path.write_bytes(gzip.compress(bytes(10_240)))
    unpack(path, tmp_path / "into", only="Set")
    assert not (tmp_path / "into").exists()
