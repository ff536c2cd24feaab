import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny_data
from tests.tables import ROOT
from training.data import feedback_images, pixels
from training.data.datasets import Dataset, load
from training.data.datasets import test_uploads as uploads_of
from training.data.splits import Split
from training.errors import DataError, TrainingError, UsageError
from training.evaluation.published import find

Files = Mapping[str, bytes]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data.write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def digits(tiny: Path) -> Dataset:
    return load("mnist", data_dir=tiny)


@pytest.fixture(scope="module")
def things(tiny: Path) -> Dataset:
    return load("cifar10", data_dir=tiny)


@pytest.fixture(scope="module")
def pets(tiny: Path) -> Dataset:
    return load("cats_vs_dogs", data_dir=tiny, size=(20, 24))


add_digits = partial(feedback_images.add, model="digits", fit="digit")
add_things = partial(feedback_images.add, model="cifar10", fit="stretch")
add_pets = partial(feedback_images.add, model="cats_vs_dogs", fit="stretch")


def written(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def photograph(mode: str = "RGB", size: tuple[int, int] = (90, 60)) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA").convert(mode)


def drawn(digit: int) -> bytes:
    """Draw an image like those of MNIST, but of none of its splits."""
    image = np.zeros((28, 28, 1), dtype=np.uint8)
    image[8:20, 4 + 2 * digit : 7 + 2 * digit] = 255
    return pixels.encode_png(image)


def same(one: Split, other: Split) -> bool:
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


def test_extra_images_are_added_to_training_only(things: Dataset, tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        {"cat/a.jpg": encoded(photograph(), "JPEG"), "truck/b.png": encoded(photograph("L"))},
    )
    more = add_things(things, folder)
    assert more.extra == 2
    assert more.train.images.shape == (242, 32, 32, 3)
    assert more.train.images.dtype == np.uint8
    assert more.train.labels.dtype == np.int64
    assert same(Split(more.train.images[:240], more.train.labels[:240]), things.train)
    assert sorted(more.labels[label] for label in more.train.labels[240:]) == ["cat", "truck"]
    assert same(more.validation, things.validation)
    assert same(more.test, things.test)
    assert more.notes[-1] == "Extra images added to train: 2."


def test_each_model_reads_its_own_folder(things: Dataset, digits: Dataset, tmp_path: Path) -> None:
    folder = written(tmp_path, {"cifar10/frog/a.png": encoded(photograph())})
    written(tmp_path, {"digits/3/a.png": drawn(3), "digits/3/b.png": drawn(4)})
    assert add_things(things, folder).extra == 1
    assert add_digits(digits, folder).train.labels[-2:].tolist() == [3, 3]


def test_files_beside_the_labels_are_ignored(digits: Dataset, tmp_path: Path) -> None:
    strays = {"labels.csv": b"id,label", ".hidden/a.png": b"", "3/.DS_Store": b""}
    assert add_digits(digits, written(tmp_path, {**strays, "3/a.png": drawn(3)})).extra == 1


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PHOTOGRAPHS = {
    "jpeg": encoded(photograph(), "JPEG"),
    "rotated jpeg": encoded(photograph(), "JPEG", exif=rotated()),
    "broken exif": encoded(
        photograph(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01"
    ),
    "transparent png": encoded(photograph("RGBA")),
    "palette gif": encoded(photograph("P"), "GIF"),
    "tiff": encoded(photograph(), "TIFF"),
}


@pytest.mark.parametrize("file", PHOTOGRAPHS.values(), ids=PHOTOGRAPHS)
def test_a_photograph_follows_the_pixel_policy(pets: Dataset, tmp_path: Path, file: bytes) -> None:
    more = add_pets(pets, written(tmp_path, {"dog/any name": file}))
    with pixels.quiet_exif():
        expected = pixels.resize(pixels.decode(file), (20, 24))
    assert np.array_equal(more.train.images[-1], expected)
    assert more.train.labels[-1] == 1


def test_a_digit_like_mnist_is_unchanged(digits: Dataset, tmp_path: Path) -> None:
    more = add_digits(digits, written(tmp_path, {"7/a.png": drawn(7)}))
    assert pixels.encode_png(more.train.images[-1]) == drawn(7)


def test_any_other_digit_is_counted_and_left_out(digits: Dataset, tmp_path: Path) -> None:
    dark_on_light = 255 - np.asarray(Image.open(BytesIO(drawn(7))))
    files = {
        "7/large.jpg": encoded(Image.new("L", (56, 56)), "JPEG"),
        "7/ink.png": encoded(Image.fromarray(dark_on_light)),
        "7/as of mnist.png": drawn(7),
    }
    more = add_digits(digits, written(tmp_path, files))
    assert more.extra == 1
    assert more.notes[-1] == (
        "Extra images left out: 2 (not 28×28 and light on dark, as training requires of digits)."
    )


def test_an_unreadable_image_is_counted_logged_and_left_out(
    pets: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    whole = encoded(photograph(), "JPEG")
    folder = written(tmp_path, {"cat/cut.jpg": whole[:300], "cat/empty": b"", "cat/a.jpg": whole})
    more = add_pets(pets, folder)
    assert more.extra == 1
    assert more.notes[-1] == "Extra images left out: 2 (not a readable image)."
    assert f"left out {folder / 'cat/cut.jpg'}: not a readable image" in caplog.messages


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_copy_of_a_held_out_image_is_left_out(things: Dataset, tmp_path: Path, part: str) -> None:
    copies = [pixels.encode_png(image) for image in getattr(things, part).images[:3]]
    files = {f"cat/{number}.png": data for number, data in enumerate(copies)}
    more = add_things(things, written(tmp_path, {**files, "cat/a.png": encoded(photograph())}))
    assert more.extra == 1
    assert more.notes[-1] == "Extra images left out: 3 (pixels occur in test or validation)."


def test_a_pet_of_the_test_split_is_recognised_in_any_lossless_file(
    tiny: Path, pets: Dataset, tmp_path: Path
) -> None:
    sent, other, *_ = (upload.data for upload in uploads_of("cats_vs_dogs", data_dir=tiny))
    again = encoded(Image.open(BytesIO(other)))
    folder = written(tmp_path, {"dog/a.jpg": sent, "dog/b.png": again})
    with pytest.raises(DataError, match=r"can be added\. Extra images left out: 2 \(pixels occur"):
        add_pets(pets, folder)


def changed(digits: Dataset, folder: Path, files: Files) -> str:
    return add_digits(digits, written(folder, files)).content_hash


def test_extra_images_and_their_labels_change_the_content_hash(
    digits: Dataset, tmp_path: Path
) -> None:
    hashes = [
        changed(digits, tmp_path / "one", {"3/a.png": drawn(3)}),
        changed(digits, tmp_path / "another", {"3/a.png": drawn(4)}),
        changed(digits, tmp_path / "labelled", {"4/a.png": drawn(3)}),
        changed(digits, tmp_path / "both", {"3/a.png": drawn(3), "3/b.png": drawn(4)}),
    ]
    assert len({digits.content_hash, *hashes}) == 5
    assert all(len(value) == 64 for value in hashes)


def test_the_names_and_the_order_of_the_files_do_not_matter(
    digits: Dataset, tmp_path: Path
) -> None:
    one = written(tmp_path / "one", {"3/a.png": drawn(3), "4/b.png": drawn(4)})
    other = written(tmp_path / "other/digits", {"3/z.png": drawn(3), "4/a.png": drawn(4)}).parent
    first, second = add_digits(digits, one), add_digits(digits, other)
    assert first.content_hash == second.content_hash
    assert same(first.train, second.train)


WRONG: dict[str, tuple[Callable[[Path], object], type[TrainingError], str]] = {
    "nothing": (lambda _: None, UsageError, r"No folder .*sent. Expected: images in .*/<label>/"),
    "a file": (lambda folder: folder.touch(), UsageError, "No folder"),
    "empty": (
        lambda folder: folder.mkdir(),
        DataError,
        r"No image in .*sent\. Expected: .*<label>",
    ),
    "empty labels": (lambda folder: (folder / "3").mkdir(parents=True), DataError, "No image in"),
    "another label": (
        lambda folder: written(folder, {"3/a.png": drawn(3), "seven/a.png": drawn(7)}),
        DataError,
        "has a folder 'seven', which is not a label of digits. Expected: 0, 1, 2",
    ),
    "another model": (
        lambda folder: written(folder, {"cifar10/cat/a.png": drawn(3)}),
        DataError,
        "has a folder 'cifar10', which is not a label of digits",
    ),
    "a folder for an image": (
        lambda folder: (folder / "3/a.png").mkdir(parents=True),
        DataError,
        "Cannot read .*a.png: Is a directory",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), WRONG.values(), ids=WRONG)
def test_an_unusable_folder_is_reported(
    digits: Dataset,
    tmp_path: Path,
    make: Callable[[Path], object],
    error: type[TrainingError],
    message: str,
) -> None:
    make(tmp_path / "sent")
    with pytest.raises(error, match=message):
        add_digits(digits, tmp_path / "sent")


def bordered(dark: int, value: int) -> bytes:
    """Draw a digit whose 108 border pixels are ``value`` but for ``dark`` of them, which are 0."""
    image = np.zeros((28, 28), np.uint8)
    image[10:18, 12:16] = 255
    border = [(y, x) for x in (0, 27) for y in range(1, 27)]
    border += [(y, x) for y in (0, 27) for x in range(28)]
    for place in border[dark:]:
        image[place] = value
    return pixels.encode_png(image[..., np.newaxis])


@pytest.mark.parametrize(
    ("dark", "value", "accepted"),
    [(54, 255, True), (53, 255, False), (0, 16, True), (0, 17, False)],
)
def test_half_of_the_border_of_a_digit_must_be_dark(
    digits: Dataset, tmp_path: Path, dark: int, value: int, accepted: bool
) -> None:
    files = {"1/a.png": bordered(dark, value), "7/b.png": drawn(7)}
    assert add_digits(digits, written(tmp_path, files)).extra == 1 + accepted


def test_every_reason_is_reported_if_no_image_can_be_added(digits: Dataset, tmp_path: Path) -> None:
    folder = written(tmp_path, {"3/a.png": b"not an image", "3/b.png": bordered(0, 255)})
    with pytest.raises(DataError) as raised:
        add_digits(digits, folder)
    assert str(raised.value) == (
        f"No image in {folder} can be added. Extra images left out: 1 (not 28×28 and light on "
        "dark, as training requires of digits). Extra images left out: 1 (not a readable image)."
    )


def test_a_folder_that_cannot_be_listed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(DataError, match=rf"^Cannot list {tmp_path}: Permission denied\."):
        feedback_images.find(tmp_path, model="digits", labels=["3"])


def test_every_file_is_listed_with_its_label_in_order(tmp_path: Path) -> None:
    folder = written(tmp_path, {f"digits/{name}": b"" for name in ("3/b", "3/a", "1/z", "3/.c")})
    place = folder / "digits"
    assert feedback_images.find(folder, model="digits", labels=tuple("0123456789")) == [
        *((place / "1/z", 1), (place / "3/a", 3), (place / "3/b", 3))
    ]


def test_the_content_hash_is_that_of_the_set_and_of_the_extra_images(
    digits: Dataset, tmp_path: Path
) -> None:
    more = add_digits(digits, written(tmp_path, {"3/a.png": drawn(3), "4/b.png": drawn(4)}))
    images, labels = more.train.images[-2:], more.train.labels[-2:].tolist()
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    assert hashes == sorted(hashes)
    lines = sorted(f"extra {k} {h}\n" for k, h in zip(labels, hashes, strict=True))
    extra = hashlib.sha256("".join(lines).encode()).hexdigest()
    both = f"{digits.content_hash} {extra}".encode()
    assert more.content_hash == hashlib.sha256(both).hexdigest()


def test_the_notes_count_added_and_left_out_images(digits: Dataset, tmp_path: Path) -> None:
    files = {"3/a.png": drawn(3), "3/b.png": b"not an image", "3/c.png": drawn(4)}
    files |= {"3/d.jpg": encoded(Image.new("L", (28, 29)), "JPEG")}
    more = add_digits(digits, written(tmp_path, files))
    assert more.notes == (
        *digits.notes,
        "Extra images added to train: 2.",
        "Extra images left out: 1 (not 28×28 and light on dark, as training requires of digits).",
        "Extra images left out: 1 (not a readable image).",
    )


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "model"), [("mnist", "digits"), ("cifar10", "cifar10")])
def test_the_golden_images_of_a_real_version_are_never_trained_on(
    name: str, model: str, real_dir: Path, tmp_path: Path
) -> None:
    golden = sorted((find(model, ROOT / "models").folder / "golden").iterdir())
    files = {f"{path.name.partition('-')[0]}/{path.name}": path.read_bytes() for path in golden}
    data = load(name, data_dir=real_dir)
    add = add_digits if model == "digits" else add_things
    with pytest.raises(DataError, match=r"Extra images left out: 10 \(pixels occur in test"):
        add(data, written(tmp_path, files))
