import csv
import gzip
import hashlib
import logging
import shutil
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny_data
from training import recipes
from training.data import pets, pixels
from training.data.datasets import SUBSET, Dataset, default_data_dir, load
from training.data.datasets import test_uploads as uploads_of
from training.data.pets import KINDS
from training.data.sources import SOURCES
from training.data.splits import PARTS, PUBLISHED_PETS, Split, pet_part
from training.errors import DataError, UsageError

DOCS = Path(__file__).parents[3] / "docs" / "datasets.md"
SIZES = {"mnist": None, "cifar10": None, "cats_vs_dogs": (20, 24)}
every_set = pytest.mark.parametrize("name", SIZES)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data.write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """Copy the tiny data for a test that damages them."""
    return Path(shutil.copytree(tiny, tmp_path / "data"))


def read(name: str, data_dir: Path) -> Dataset:
    return load(name, data_dir=data_dir, size=SIZES[name])


def per_class(split: Split) -> list[int]:
    return sorted(Counter(split.labels.tolist()).values())


def same(one: Dataset, other: Dataset) -> bool:
    return one.content_hash == other.content_hash and all(
        np.array_equal(getattr(one, part).images, getattr(other, part).images)
        and np.array_equal(getattr(one, part).labels, getattr(other, part).labels)
        for part in PARTS
    )


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("mnist", (28, 28, 1), (240, 60, 100)),
        ("cifar10", (32, 32, 3), (240, 60, 100)),
        ("cats_vs_dogs", (20, 24, 3), (40, 20, 20)),
    ],
)
def test_a_set_has_uint8_pictures_and_int64_labels(
    tiny: Path, name: str, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    data = read(name, tiny)
    assert data.labels == SOURCES[name].labels
    for part, count in zip(PARTS, sizes, strict=True):
        split = getattr(data, part)
        assert split.images.shape == (count, *shape)
        assert split.images.dtype == np.uint8
        assert split.labels.shape == (count,)
        assert split.labels.dtype == np.int64


@every_set
def test_every_split_is_balanced(tiny: Path, name: str) -> None:
    data = read(name, tiny)
    for part in PARTS:
        assert len(set(per_class(getattr(data, part)))) == 1
        assert len(per_class(getattr(data, part))) == len(data.labels)


def test_a_cifar_image_is_upright_and_in_its_colours(own: Path) -> None:
    red_top = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    red_top[:, :8, :, 0] = 255
    path = own / "cifar-10-batches-bin" / "test_batch.bin"
    with path.open("ab") as file:
        file.write(tiny_data.cifar_records(red_top, np.array([6], np.uint8)).tobytes())
    test = read("cifar10", own).test
    found = [image for image in test.images if np.array_equal(image, red_top[0])]
    assert len(found) == 1


def test_the_order_of_records_on_disk_does_not_matter(tiny: Path, own: Path) -> None:
    folder = own / "cifar-10-batches-bin"
    files = [folder / f"data_batch_{number}.bin" for number in range(1, 6)]
    records = np.concatenate([np.frombuffer(f.read_bytes(), np.uint8) for f in files])
    reversed_records = np.split(records.reshape(-1, 3073)[::-1], 5)
    for file, batch in zip(files, reversed_records, strict=True):
        file.write_bytes(batch.tobytes())
    assert same(read("cifar10", own), read("cifar10", tiny))


def test_the_gzip_wrapper_does_not_matter(tiny: Path, own: Path) -> None:
    for file in (own / "mnist").glob("*.gz"):
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), compresslevel=0))
    assert same(read("mnist", own), read("mnist", tiny))


def test_one_changed_pixel_changes_the_content_hash(tiny: Path, own: Path) -> None:
    path = own / "cifar-10-batches-bin" / "data_batch_3.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert read("cifar10", own).content_hash != read("cifar10", tiny).content_hash


def test_one_changed_label_changes_the_content_hash(tiny: Path, own: Path) -> None:
    path = own / "cifar-10-batches-bin" / "data_batch_3.bin"
    data = bytearray(path.read_bytes())
    data[0] = (data[0] + 1) % 10
    path.write_bytes(data)
    assert read("cifar10", own).content_hash != read("cifar10", tiny).content_hash


def test_the_content_hash_of_pets_does_not_depend_on_the_size(tiny: Path) -> None:
    hashes = {
        load("cats_vs_dogs", data_dir=tiny, size=size).content_hash for size in ((8, 8), (20, 24))
    }
    assert len(hashes) == 1


def test_a_pet_stays_in_its_split_if_others_are_missing(tiny: Path, own: Path) -> None:
    whole = read("cats_vs_dogs", tiny)
    train_cats = [n for n in tiny_data.pet_numbers("Cat") if pet_part("Cat", n) == "train"]
    for number in train_cats[:15]:
        (own / "PetImages" / "Cat" / f"{number}.jpg").unlink()
    fewer = read("cats_vs_dogs", own)
    assert per_class(fewer.train) == [5, 20]
    assert np.array_equal(fewer.test.images, whole.test.images)
    assert np.array_equal(fewer.validation.images, whole.validation.images)


def test_the_split_of_the_published_pets_is_documented() -> None:
    names = {part: [] for part in PARTS}  # type: dict[str, list[str]]
    for kind in KINDS:
        for number in range(PUBLISHED_PETS):
            names[pet_part(kind, number)].append(f"{kind}/{number}\n")
    for part, members in names.items():
        digest = hashlib.sha256("".join(members).encode()).hexdigest()
        assert f"| {part} | {len(members):,} | `{digest}` |" in DOCS.read_text("utf-8")


def test_a_copy_of_a_test_image_is_left_out_of_training(own: Path) -> None:
    folder = own / "cifar-10-batches-bin"
    copy = (folder / "test_batch.bin").read_bytes()[:3073]
    with (folder / "data_batch_1.bin").open("ab") as file:
        file.write(copy)
    data = read("cifar10", own)
    assert len(data.train.images) + len(data.validation.images) == 300
    assert len(data.test.images) == 100
    assert "left out of train: 1 (pixels occur in test or validation)." in data.notes[-1]


def test_a_copied_pet_stays_in_test_alone(own: Path) -> None:
    numbers = {pet_part("Dog", n): n for n in tiny_data.pet_numbers("Dog")}
    dogs = own / "PetImages" / "Dog"
    for part in ("train", "validation"):
        shutil.copy(dogs / f"{numbers['test']}.jpg", dogs / f"{numbers[part]}.jpg")
    data = read("cats_vs_dogs", own)
    assert [per_class(getattr(data, part)) for part in PARTS] == [[19, 20], [9, 10], [10, 10]]
    assert sum("pixels occur in" in note for note in data.notes) == 2


def listed(part: str) -> list[str]:
    """Return two names of the tiny pets in a split, one of each kind."""
    return [
        next(f"{kind}/{n}.jpg" for n in tiny_data.pet_numbers(kind) if pet_part(kind, n) == part)
        for kind in KINDS
    ]


def test_listed_pets_are_left_out_of_training_and_validation_and_noted(tiny: Path) -> None:
    whole = read("cats_vs_dogs", tiny)
    names = [*listed("train"), listed("validation")[0]]
    data = load("cats_vs_dogs", data_dir=tiny, size=SIZES["cats_vs_dogs"], leave_out=names)
    assert [per_class(getattr(data, part)) for part in PARTS] == [[19, 19], [9, 10], [10, 10]]
    assert not {*names} & {*data.train.names, *data.validation.names}
    for part, count in (("train", 2), ("validation", 1)):
        text = f"Images left out of {part}: {count} (unanswerable or wrong, "
        assert any(note.startswith(text) for note in data.notes)
    assert data.notes[0] == whole.notes[0]  # they count as present


def test_the_test_split_is_whole_whatever_is_listed(tiny: Path) -> None:
    whole = read("cats_vs_dogs", tiny)
    names = [f"{kind}/{n}.jpg" for kind in KINDS for n in tiny_data.pet_numbers(kind)]
    spared = {*listed("train"), *listed("validation")}  # no split may be empty
    data = load(
        "cats_vs_dogs", data_dir=tiny, size=SIZES["cats_vs_dogs"], leave_out={*names} - spared
    )
    assert {*data.train.names, *data.validation.names} == spared
    assert np.array_equal(data.test.images, whole.test.images)
    assert np.array_equal(data.test.labels, whole.test.labels)
    assert data.test.names == whole.test.names


def test_listed_pets_change_the_content_hash_but_not_its_first_word(tiny: Path) -> None:
    whole = read("cats_vs_dogs", tiny)
    hashes = {
        load("cats_vs_dogs", data_dir=tiny, size=(8, 8), leave_out=names).content_hash
        for names in (listed("train"), listed("validation"), listed("test"))
    }
    assert len(hashes) == 3
    assert {each.split()[0] for each in hashes} == {whole.content_hash}
    assert whole.content_hash in hashes  # of the list that names test images alone


def test_a_copy_of_a_listed_validation_image_is_not_trained_on(own: Path) -> None:
    (validation, _), (train, _) = listed("validation"), listed("train")
    shutil.copy(own / "PetImages" / validation, own / "PetImages" / train)
    data = load("cats_vs_dogs", data_dir=own, size=(8, 8), leave_out=[validation])
    assert train not in data.train.names


def test_the_list_of_unanswerable_pets_names_training_and_validation_images_alone() -> None:
    with Path(pets.__file__).with_name("pets_left_out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["split"] == pet_part(row["kind"], int(row["number"])) != "test"
        assert row["reason"]
    assert len(rows) == len(pets.unanswerable())
    assert rows == sorted(rows, key=lambda row: (row["kind"], int(row["number"])))
    counts = Counter(row["split"] for row in rows)
    text = f"{counts['train']} training and {counts['validation']} validation images"
    assert text in " ".join(DOCS.read_text("utf-8").split())


def test_only_the_recommended_recipe_leaves_them_out() -> None:
    assert [name for name in recipes.names() if recipes.find(name).leaves_out] == ["cats_vs_dogs"]


def test_unreadable_pets_are_named_and_left_out(own: Path) -> None:
    number = tiny_data.pet_numbers("Cat")[0]
    cat = own / "PetImages" / "Cat" / f"{number}.jpg"
    cat.write_bytes(cat.read_bytes()[:300])
    data = read("cats_vs_dogs", own)
    assert sum(len(getattr(data, part).images) for part in PARTS) == 79
    assert f"Unreadable files left out: 1 (Cat/{number}.jpg)." in data.notes


def test_an_empty_file_is_an_unreadable_pet(own: Path) -> None:
    number = tiny_data.pet_numbers("Dog")[0]
    (own / "PetImages" / "Dog" / f"{number}.jpg").write_bytes(b"")
    assert any(f"Dog/{number}.jpg" in note for note in read("cats_vs_dogs", own).notes)


def test_a_pet_with_damaged_exif_is_read(own: Path) -> None:
    number = tiny_data.pet_numbers("Dog")[0]
    cut_exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0"
    out = BytesIO()
    Image.new("RGB", (50, 40), "teal").save(out, "JPEG", exif=cut_exif)
    (own / "PetImages" / "Dog" / f"{number}.jpg").write_bytes(out.getvalue())
    assert not any("Unreadable" in note for note in read("cats_vs_dogs", own).notes)


def test_an_interrupt_while_reading_pets_does_not_wait_for_every_image(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: list[Any] = []
    decoded: list[pets.PetFile] = []
    submit = ThreadPoolExecutor.submit

    def stopping(pool: ThreadPoolExecutor, *task: Any) -> Future[Any]:
        if len(queued) == 15:
            raise KeyboardInterrupt
        queued.append(task)
        return submit(pool, *task)

    def decode(file: pets.PetFile, _size: tuple[int, int]) -> tuple[bytes, None]:
        decoded.append(file)
        time.sleep(0.05)
        return b"", None

    monkeypatch.setattr(ThreadPoolExecutor, "submit", stopping)
    monkeypatch.setattr(pets, "_decode", decode)
    with pytest.raises(KeyboardInterrupt):
        read("cats_vs_dogs", tiny)
    assert len(decoded) < len(queued)


def test_other_files_among_the_pets_are_ignored(tiny: Path, own: Path) -> None:
    for stray in ("Thumbs.db", "12500.jpg", "7 (copy).jpg", "._0.jpg", "007.jpg"):
        (own / "PetImages" / "Cat" / stray).write_bytes(b"not an image")
    assert read("cats_vs_dogs", own).notes == read("cats_vs_dogs", tiny).notes


@every_set
def test_a_partial_set_must_be_declared(own: Path, name: str) -> None:
    (own / SOURCES[name].folder / SUBSET).unlink()
    with pytest.raises(DataError, match=rf"Expected: .*file named {SUBSET}"):
        read(name, own)


@every_set
def test_a_partial_set_is_noted(tiny: Path, name: str) -> None:
    assert any("published images are present" in note for note in read(name, tiny).notes)


@every_set
def test_reading_writes_nothing(own: Path, name: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*")}
    read(name, own)
    assert {path: path.stat().st_mtime_ns for path in own.rglob("*")} == before


def idx(*shape: int, fill: int = 0) -> bytes:
    header = bytes((0, 0, 8, len(shape))) + np.array(shape, dtype=">u4").tobytes()
    return gzip.compress(header + bytes([fill]) * int(np.prod(shape)), mtime=0)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("mnist/t10k-images-idx3-ubyte.gz", b"<html>", "damaged"),
        ("mnist/t10k-images-idx3-ubyte.gz", idx(9, 28, 28)[:-9], "damaged"),
        ("mnist/t10k-images-idx3-ubyte.gz", idx(5), "starts with 00 00 08 01"),
        ("mnist/t10k-images-idx3-ubyte.gz", gzip.compress(b"", mtime=0), "starts with nothing"),
        ("mnist/t10k-images-idx3-ubyte.gz", idx(100, 28, 27), "are 28x27. Expected: 28x28"),
        ("mnist/t10k-images-idx3-ubyte.gz", idx(99, 28, 28), "99 images and 100 labels"),
        ("mnist/t10k-labels-idx1-ubyte.gz", idx(100, fill=10), "label 10. Expected: 0 to 9"),
        ("mnist/t10k-labels-idx1-ubyte.gz", idx(100, fill=3), "0 of them '0'"),
        ("cifar-10-batches-bin/test_batch.bin", b"", "0 bytes. Expected: whole records"),
        ("cifar-10-batches-bin/test_batch.bin", bytes(3074), "3,074 bytes. Expected: whole"),
        ("cifar-10-batches-bin/test_batch.bin", b"\x0b" + bytes(3072), "label 11"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_damaged_files_are_reported(own: Path, file: str, content: bytes, message: str) -> None:
    (own / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read("mnist" if file.startswith("mnist") else "cifar10", own)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("mnist", "mnist/train-labels-idx1-ubyte.gz"),
        ("cifar10", "cifar-10-batches-bin/data_batch_4.bin"),
        ("cats_vs_dogs", "PetImages/Dog"),
    ],
)
def test_a_missing_file_is_reported_by_its_path(own: Path, name: str, gone: str) -> None:
    path = own / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=gone):
        read(name, own)


def test_a_split_without_a_class_is_reported(own: Path) -> None:
    for number in tiny_data.pet_numbers("Cat"):
        if pet_part("Cat", number) == "validation":
            (own / "PetImages" / "Cat" / f"{number}.jpg").unlink()
    with pytest.raises(DataError, match="no validation image of: cat"):
        read("cats_vs_dogs", own)


def test_an_unknown_set_is_reported_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'dogs'\. Known data sets: mnist, cifar10, cats_vs_dogs"):
        load("dogs", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "size", "shown"),
    [
        ("mnist", (32, 28), "32×28"),
        ("cifar10", (28, 28), "28×28"),
        ("cats_vs_dogs", None, "None"),
        ("cats_vs_dogs", (0, 9), "0×9"),
    ],
)
def test_a_size_that_a_set_cannot_have_is_refused(
    tiny: Path, name: str, size: tuple[int, int] | None, shown: str
) -> None:
    with pytest.raises(UsageError, match=f"at size {shown}. Expected: "):
        load(name, data_dir=tiny, size=size)


@every_set
def test_uploads_are_the_test_split_in_its_order(tiny: Path, name: str) -> None:
    data = read(name, tiny)
    uploads = list(uploads_of(name, data_dir=tiny))
    assert [upload.label for upload in uploads] == [data.labels[k] for k in data.test.labels]
    assert len({upload.filename for upload in uploads}) == len(uploads)
    for upload, image in zip(uploads, data.test.images, strict=True):
        decoded = pixels.resize(pixels.decode(upload.data), image.shape[:2])
        assert np.array_equal(decoded[..., : image.shape[2]], image)


def test_uploads_leave_out_the_same_unreadable_files(own: Path) -> None:
    number = next(n for n in tiny_data.pet_numbers("Cat") if pet_part("Cat", n) == "test")
    (own / "PetImages" / "Cat" / f"{number}.jpg").write_bytes(b"not an image")
    uploads = list(uploads_of("cats_vs_dogs", data_dir=own))
    assert len(uploads) == len(read("cats_vs_dogs", own).test.images) == 19


def test_an_upload_has_the_type_of_its_bytes_not_of_its_name(own: Path) -> None:
    number = next(n for n in tiny_data.pet_numbers("Dog") if pet_part("Dog", n) == "test")
    out = BytesIO()
    Image.new("RGB", (50, 40), "teal").save(out, "GIF")
    (own / "PetImages" / "Dog" / f"{number}.jpg").write_bytes(out.getvalue())
    types = Counter(upload.content_type for upload in uploads_of("cats_vs_dogs", data_dir=own))
    assert types == {"image/jpeg": 19, "image/gif": 1}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DATA_DIR": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/convserve"),
        ({"DATA_DIR": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/convserve"),
    ],
)
def test_the_data_folder_is_data_dir_else_the_cache(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_data_dir() == Path(expected)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_real_splits_are_the_documented_ones(real_dir: Path, name: str) -> None:
    data = load(name, data_dir=real_dir)
    counts = " | ".join(f"{len(getattr(data, part).images):,}" for part in PARTS)
    assert f"| `{name}` | {counts} | `{data.content_hash}` |" in DOCS.read_text("utf-8")
    assert per_class(data.validation) == [500] * 10
    assert data.notes == ()


@pytest.mark.real_data
def test_the_real_pets_are_whole_enough(real_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data = load("cats_vs_dogs", data_dir=real_dir, size=(32, 32))
    uploads = uploads_of("cats_vs_dogs", data_dir=real_dir)
    assert [upload.label for upload in uploads] == [data.labels[k] for k in data.test.labels]
    unreadable = next(note for note in data.notes if "Unreadable" in note)
    assert "Cat/666.jpg" in unreadable
    assert "Dog/11702.jpg" in unreadable
