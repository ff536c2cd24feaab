import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.inference.models.published import check_sums
from tests.training import tiny
from training.errors import BelowGate, Preempted, RunMismatch, UsageError
from training.evaluation import calibration, cost
from training.evaluation.corruptions import sets
from training.evaluation.scoring import probabilities
from training.evaluation.scoring import run as run_file
from training.fitting import checkpoints as runs
from training.fitting import provenance
from training.fitting.checkpoints import read_state
from training.fitting.fit import fit
from training.fitting.signals import Sigterm
from training.publishing import model_card, quantize, to_onnx, versions
from training.publishing import publish as publishing
from training.publishing.publish import _surest, publish

SIGNALS = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    fit(
        tiny.RECIPE,
        tiny.dataset(),
        run=folder,
        precision="float32",
        command="a command",
        verbose=0,
    )
    return folder


@pytest.fixture(autouse=True)
def int8_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake the clock, with int8 slower."""
    fake_milliseconds(monkeypatch, float32=1.0, int8=1.5)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: pictures are half of the time, and the fixture ``published`` has them."""
    monkeypatch.setattr(model_card, "_pictures", lambda *_: {})


def changed(run: Path, folder: Path, **fields: object) -> Path:
    """Copy a run with other fields in its state."""
    shutil.copytree(run, folder)
    runs.write_state(folder, replace(read_state(run), **fields))  # type: ignore[arg-type]
    return folder


def fake_milliseconds(monkeypatch: pytest.MonkeyPatch, *, float32: float, int8: float) -> None:
    times = {"model.onnx": float32, "model.int8.onnx": int8}
    monkeypatch.setattr(cost, "milliseconds", lambda file: times[file.name])


@pytest.fixture(scope="module")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish a version with an int8 file."""
    models = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        fake_milliseconds(patch, float32=1.0, int8=0.5)
        return publish(tiny.RECIPE, tiny.dataset(), run=run, models=models)


def properties(folder: Path, file: str = "model.onnx") -> dict[str, str]:
    model = onnx.load(folder / file)
    return {entry.key: entry.value for entry in model.metadata_props}


def test_the_metadata_have_everything_that_serving_needs(published: Path) -> None:
    held = properties(published)
    assert (held["schema"], held["name"], held["version"]) == ("2", "brightness", "1")
    assert (json.loads(held["labels"]), held["fit"]) == (["dark", "light"], "stretch")


def test_the_metadata_describe_the_training_and_the_results(published: Path) -> None:
    held = properties(published)
    metrics = json.loads(held["metrics"])
    assert metrics["images"] == 300
    assert metrics["accuracy"] == round(metrics["correct"] / 300, 6) >= 0.9
    assert json.loads(held["dataset"])["split"] == {"train": 130, "validation": 64, "test": 300}
    assert "extra" not in json.loads(held["dataset"])
    assert json.loads(held["source"])["command"] == "a command"
    assert sum(json.loads(held["baseline"])["classes"].values()) == pytest.approx(1)


def test_the_golden_images_are_test_images_named_by_label(published: Path) -> None:
    names = sorted(path.stem.split("-") for path in (published / "golden").iterdir())
    assert sorted(int(n) for _, n in names) == list(range(10))
    assert [label for label, _ in names] == ["dark"] * 5 + ["light"] * 5
    with Image.open(published / "golden" / "dark-0.png") as picture:
        assert picture.size == (8, 8)


def test_the_card_has_the_figures_and_all_its_pictures(published: Path) -> None:
    card = (published / "README.md").read_text()
    assert "`brightness` version 1" in card
    assert "a command" in card
    pictures = {path.name for path in (published / "report").iterdir()}
    assert len(pictures) == 6
    assert all(f"report/{name}" in card for name in pictures)


def test_the_card_has_the_cost_of_an_image(published: Path) -> None:
    card = (published / "README.md").read_text()
    convolution, dense = 6 * 6 * 4 * 3 * 3 * 3, 4 * 2
    assert f"| {(convolution + dense) / 1e6:.1f} million multiply-accumulates, " in card
    assert " ms at one thread" in card


def test_the_file_holds_the_thresholds_of_the_prediction_sets(published: Path) -> None:
    held = json.loads(properties(published)["conformal"])
    answers = probabilities(published / "model.onnx", tiny.dataset().test.images)
    assert list(held) == ["0.9", "0.95", "0.99"]
    assert held["0.9"] >= held["0.95"] >= held["0.99"] == 0  # 64 images cannot promise 99 %
    sets = calibration.sets(answers, tiny.dataset().test.labels, held["0.9"])
    assert sets.coverage == pytest.approx(0.9, abs=0.1)


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_the_typicality_of_each_file_is_uniform_on_validation_images(
    published: Path, name: str
) -> None:
    (found,) = run_file(published / name, tiny.dataset().validation.images, "typicality")
    assert [np.mean(found <= share) for share in (0.25, 0.5, 0.75, 1)] == pytest.approx(
        [0.25, 0.5, 0.75, 1],
        abs=5 / 64,  # int8 has ties
    )


def test_the_card_has_the_shares_of_unusual_test_images(published: Path) -> None:
    data = tiny.dataset()
    (found,) = run_file(published / "model.onnx", data.test.images, "typicality")
    shares = [f"{np.mean(found < least):.1%} below {least}" for least in (0.01, 0.05)]
    card = (published / "README.md").read_text()
    assert f"| Typicality | of the test images, {shares[0]} and {shares[1]} |" in card


def test_the_file_is_compared_once_in_its_published_form(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    compare = to_onnx.compare

    def counted(model: object, file: Path, images: NDArray[np.uint8]) -> float:
        compared.append(versions.digest(file))
        return compare(model, file, images)

    monkeypatch.setattr(to_onnx, "compare", counted)
    folder = publish(tiny.RECIPE, tiny.dataset(), run=run, models=tmp_path)
    assert compared == [versions.digest(folder / "model.onnx")]


def test_a_second_publication_is_the_next_version(run: Path, tmp_path: Path) -> None:
    folders = [publish(tiny.RECIPE, tiny.dataset(), run=run, models=tmp_path) for _ in range(2)]
    assert [folder.name for folder in folders] == ["1", "2"]
    assert properties(folders[1])["version"] == "2"


def test_the_golden_images_are_the_surest_correct_answers_of_each_class() -> None:
    test = tiny.split(6, 1)  # dark, light, dark, light, dark, light
    sure = np.array([0.9, 0.6, 0.99, 0.7, 0.2, 0.8], np.float32)  # of the true label
    answers = np.where(np.eye(2)[test.labels] > 0, sure[:, None], 1 - sure[:, None])
    assert list(_surest(test, [answers.astype(np.float32)])) == [2, 5, 0, 3, 1]


def test_the_golden_images_are_correct_in_both_files() -> None:
    test = tiny.split(4, 1)  # dark, light, dark, light
    one = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]], np.float32)
    other = np.array([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1], [0.7, 0.3]], np.float32)
    assert list(_surest(test, [one, other])) == [2, 1, 0]


def test_the_int8_file_keeps_the_contract_and_has_its_own_results(
    published: Path,
) -> None:
    held, other = properties(published, "model.int8.onnx"), properties(published)
    assert (held["precision"], other["precision"]) == ("int8", "float32")
    same = ("schema", "name", "version", "labels", "fit", "recipe", "dataset", "source")
    assert {key: held[key] for key in same} == {key: other[key] for key in same}
    file, test = published / "model.int8.onnx", tiny.dataset().test
    answers, typicality = run_file(file, test.images, "probabilities", "typicality")
    right = int(np.sum(answers.argmax(axis=1) == tiny.dataset().test.labels))
    assert json.loads(held["metrics"])["correct"] == right
    assert json.loads(held["baseline"]) == calibration.baseline(
        answers, typicality, ("dark", "light")
    )
    validation = tiny.dataset().validation
    held_out = probabilities(published / "model.int8.onnx", validation.images)
    thresholds = calibration.thresholds(held_out, validation.labels)
    assert json.loads(held["conformal"]) == {f"{each:g}": p for each, p in thresholds.items()}


def test_the_card_describes_both_files(published: Path) -> None:
    card = (published / "README.md").read_text()
    assert " multiply-accumulates, 1.00 ms at one thread" in card
    assert "| int8 | `model.int8.onnx`: " in card
    assert "0.50 ms an image, 0.0 MB |" in card


@pytest.mark.parametrize(
    ("int8", "least", "reason"),
    [(0.95, 1, "it is not 10% faster"), (0.5, -1000, "it is 0.00 points less accurate")],
    ids=["too slow", "too inaccurate"],
)
def test_an_int8_file_that_is_not_worth_it_is_not_published(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    int8: float,
    least: int,
    reason: str,
) -> None:
    fake_milliseconds(monkeypatch, float32=1.0, int8=int8)
    monkeypatch.setattr(quantize, "MOST_LOST", least)
    folder = publish(tiny.RECIPE, tiny.dataset(), run=run, models=tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "SHA256SUMS", "golden", "model.onnx", "report")
    }
    assert f"| int8 | none: {reason} (" in (folder / "README.md").read_text()


def swallow() -> None:
    """Receive SIGTERM as a library does that continues after any error."""
    with suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


def replace_it() -> None:
    """Receive SIGTERM as a library does that reports every error as its own."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException as exc:
        raise OSError("[ONNXRuntimeError] : 1 : FAIL") from exc


@pytest.mark.parametrize("receive", [swallow, replace_it])
@pytest.mark.parametrize(
    ("module", "step"),
    [(to_onnx, "convert"), (to_onnx, "compare"), (quantize, "quantize"), (model_card, "write")],
    ids=["converter", "onnxruntime", "quantiser", "pictures"],
)
def test_a_signal_within_a_library_publishes_nothing(
    module: ModuleType,
    step: str,
    receive: Callable[[], None],
    run: Path,
    tmp_path: Path,
    sigterm: Sigterm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = getattr(module, step)

    def signalled(*given: object) -> object:
        receive()
        return real(*given)

    monkeypatch.setattr(publishing, "SIGTERM", sigterm)
    monkeypatch.setattr(module, step, signalled)
    held = changed(run, tmp_path / "run")
    with pytest.raises(Preempted):
        publish(tiny.RECIPE, tiny.dataset(), run=held, models=tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def publish_counted(run: Path, models: Path, *, signal_at: int = 0) -> int:
    """Publish, and return the number of calls of Python functions; receive SIGTERM in one."""
    calls = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"
        if calls == signal_at:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGTERM)

    sys.setprofile(profile)
    try:
        publish(tiny.RECIPE, tiny.dataset(), run=run, models=models)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one in a __del__
def test_a_signal_anywhere_in_the_real_libraries_publishes_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, models = changed(run, tmp_path / "run"), tmp_path / "models"
    for _ in range(2):  # the first one compiles
        calls = publish_counted(held, tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)
    for share in np.linspace(0.05, 0.8, SIGNALS):
        listening = Sigterm()
        listening.listen()
        monkeypatch.setattr(publishing, "SIGTERM", listening)
        with pytest.raises(Preempted):
            publish_counted(held, models, signal_at=int(calls * share))
        assert not models.exists() or list(models.iterdir()) == [], share
    signal.signal(signal.SIGTERM, before)


def test_each_file_has_its_accuracy_on_corrupted_images(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = sets.Benchmark("two kinds", (sets.CIFAR10[0], sets.CIFAR10[10]))
    monkeypatch.setattr(sets, "find", lambda *_: two)
    fake_milliseconds(monkeypatch, float32=1.0, int8=0.5)
    folder = publish(tiny.RECIPE, tiny.dataset(), run=run, models=tmp_path, corrupted=True)
    test = tiny.dataset().test
    for name in ("model.onnx", "model.int8.onnx"):
        held = json.loads(properties(folder, name)["corrupted"])
        assert list(held["kinds"]) == ["gaussian_noise", "contrast"]
        answers = probabilities(folder / name, sets.CIFAR10[0].apply(test.images, 5))
        share = np.mean(answers.argmax(axis=1) == test.labels)
        assert held["kinds"]["gaussian_noise"][4] == pytest.approx(share, abs=1e-6)
    card = (folder / "README.md").read_text()
    assert "## On corrupted images" in card
    assert f", {held['accuracy']:.2%} corrupted |" in card  # the row of int8
    check_sums(folder)


def test_a_run_of_an_older_recipe_is_not_published(run: Path, tmp_path: Path) -> None:
    edited = replace(tiny.RECIPE, batch_size=16)
    with pytest.raises(RunMismatch, match="The recipe tiny has changed since"):
        publish(edited, tiny.dataset(), run=run, models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_not_published_with_other_data(run: Path, tmp_path: Path) -> None:
    other = replace(tiny.dataset(), content_hash="other-hash")
    with pytest.raises(RunMismatch, match=r"on data 'some-hash', not 'other-hash'.* --extra"):
        publish(tiny.RECIPE, other, run=run, models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_metadata_and_the_card_count_extra_images(run: Path, tmp_path: Path) -> None:
    folder = publish(tiny.RECIPE, replace(tiny.dataset(), extra=30), run=run, models=tmp_path)
    assert json.loads(properties(folder)["dataset"])["extra"] == 30
    row = "brightness: 130 training (30 of them extra), 64 validation, 300 test images"
    assert row in (folder / "README.md").read_text()


def test_an_unfinished_run_is_not_published(run: Path, tmp_path: Path) -> None:
    unfinished, models = changed(run, tmp_path / "run", epochs=5), tmp_path / "models"
    with pytest.raises(UsageError, match="has done 3 of 5 epochs"):
        publish(tiny.RECIPE, tiny.dataset(), run=unfinished, models=models)
    assert not models.exists()


def test_metadata_and_card_have_the_code_of_training_and_of_export(
    monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOURCE_REVISION", "v1.2.3")
    (began,) = read_state(run).sources
    other = {**began, "at": "2026-01-01T00:00:00+00:00", "code": "other"}
    held = changed(run, tmp_path / "run", sources=[began | {"revision": "v1-dirty"}, other])
    folder = publish(tiny.RECIPE, tiny.dataset(), run=held, models=tmp_path / "models")
    source = json.loads(properties(folder)["source"])
    assert (source["revision"], source["code"]) == ("v1-dirty", provenance.code())
    assert source["versions"].keys() == {"python", "keras", "numpy", "pillow", "tensorflow"}
    assert source["resumed"] == [other]
    assert source["exported"]["revision"] == "v1.2.3"
    assert "tf2onnx" in source["exported"]["versions"]
    ended = properties(folder)["trained_at"]
    assert began["at"] <= ended == read_state(run).ended <= source["exported"]["at"]
    card = (folder / "README.md").read_text()
    assert f"| Trained | {began['at']} to {ended}, revision `v1-dirty`, code `" in card
    assert "| Resumed 2026-01-01T00:00:00+00:00 | revision " in card
    assert f"| Exported | {source['exported']['at']}, revision `v1.2.3`, code `" in card


def test_a_run_of_an_older_version_is_published_without_the_code_of_its_training(
    run: Path, tmp_path: Path
) -> None:
    held = changed(run, tmp_path / "run", sources=[], ended="")
    os.utime(runs.best(held), (0, 0))
    folder = publish(tiny.RECIPE, tiny.dataset(), run=held, models=tmp_path / "models")
    assert properties(folder)["trained_at"] == "1970-01-01T00:00:00+00:00"
    assert json.loads(properties(folder)["source"])["revision"] == ""
    row = "| Trained | until 1970-01-01T00:00:00+00:00, by code that was not recorded |"
    assert row in (folder / "README.md").read_text()


def test_a_run_below_its_gate_publishes_nothing(run: Path, tmp_path: Path) -> None:
    strict, models = replace(tiny.RECIPE, min_accuracy=1.01), tmp_path / "models"
    held = changed(run, tmp_path / "run", page=strict.fingerprint())
    for _ in range(2):
        with pytest.raises(BelowGate, match=r"below its min_accuracy of 101.00%") as raised:
            publish(strict, tiny.dataset(), run=held, models=models, corrupted=True)
    assert raised.value.exit_code == 4
    assert list(models.iterdir()) == []
    kept = held / "below-gate"
    assert f"{kept} has the file and its report" in str(raised.value)
    assert {each.name for each in kept.iterdir()} == {"README.md", "golden", "model.onnx", "report"}
    assert "| int8 | none: this file is below the gate |" in (kept / "README.md").read_text()


def test_a_signal_while_publishing_leaves_nothing(
    run: Path, tmp_path: Path, sigterm: Sigterm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "SIGTERM", sigterm)
    monkeypatch.setattr(model_card, "write", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Preempted):
        publish(tiny.RECIPE, tiny.dataset(), run=run, models=tmp_path)
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    pass


@pytest.mark.parametrize("renamed", [True, False])
def test_a_kill_around_the_rename_leaves_a_state_that_is_true(
    renamed: bool, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(self: Path, target: Path) -> Path:
        if renamed:
            self.replace(target)
        raise Killed

    held, models = changed(run, tmp_path / "run"), tmp_path / "models"
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Killed):
        publish(tiny.RECIPE, tiny.dataset(), run=held, models=models)
    found = versions.holding(models, "brightness", read_state(held).published)
    assert found == (models / "brightness" / "1" if renamed else None)
