import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tests.tiny_data import write_tiny_data
from tests.training import tiny
from training import recipes
from training.__main__ import main
from training.commands import reproduction_page
from training.commands.reproduce import as_published, metrics, train
from training.commands.reproduction_page import Result
from training.fitting.fit import fit
from training.modelling.network import build, trainable
from training.modelling.recipe import Tensor

ROOT = Path(__file__).parents[3]
TUTORIALS = [
    "cats_vs_dogs_conv128",
    "cats_vs_dogs_conv24",
    "cats_vs_dogs_conv48",
    "cats_vs_dogs_conv64_128",
    "cats_vs_dogs_mlp",
    "cifar10_sixconv",
    "digits_adadelta",
    "digits_conv5",
    "digits_convnet",
    "digits_plain",
]
PETS = [name for name in TUTORIALS if name.startswith("cats")]


def brightness(image: Tensor, outputs: int) -> Tensor:
    x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))
    return layers.Dense(outputs, activation="sigmoid", dtype="float32")(x)


SCORED = replace(
    tiny.RECIPE, network=brightness, loss="mean_squared_error", published_split=(100, 40)
)


def test_all_ten_networks_of_the_tutorials_have_a_recipe() -> None:
    assert [entry.name for entry in reproduction_page.tutorials()] == TUTORIALS


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorials_page_has_the_published_figures_and_the_difference(name: str) -> None:
    entry = recipes.find(name)
    assert entry.header("Published").endswith(".")
    assert entry.header("Difference").endswith(".")


@pytest.mark.parametrize("name", PETS)
def test_the_pets_are_trained_as_published(name: str) -> None:
    entry = recipes.find(name)
    assert (entry.shape, entry.published_split) == ((94, 125, 3), (4_096, 1_024))
    optimizer = entry.optimizer(100)
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(1e-5)
    assert entry.loss == "mean_squared_error"
    assert not entry.recommended


@pytest.mark.parametrize("name", [name for name in TUTORIALS if name not in PETS])
def test_a_network_trains_for_one_step(name: str) -> None:
    entry = recipes.find(name)
    model = trainable(entry, build(entry, 10), steps=1)
    model.run_eagerly = True  # tracing takes longer than one step
    before = [np.array(weight) for weight in model.trainable_weights]
    images = np.random.default_rng(1).integers(0, 256, (4, *entry.shape), np.uint8)
    loss = model.train_on_batch(images, np.arange(4))[0]
    assert np.isfinite(loss)
    assert any((a != b).any() for a, b in zip(before, model.trainable_weights, strict=True))


def test_as_published_nothing_is_held_out_but_the_test_split() -> None:
    data = tiny.dataset()
    published = as_published(tiny.RECIPE, data)
    assert (len(published.train.labels), len(published.validation.labels)) == (130 + 64, 0)
    np.testing.assert_array_equal(published.test.images, data.test.images)
    assert published.content_hash != data.content_hash


def test_as_published_a_part_of_the_pets_is_used() -> None:
    published = as_published(SCORED, tiny.dataset())
    assert (len(published.train.labels), len(published.validation.labels)) == (100, 40)


def test_without_validation_data_the_last_epoch_is_the_result(tmp_path: Path) -> None:
    data = as_published(tiny.RECIPE, tiny.dataset())
    state = fit(tiny.RECIPE, data, run=tmp_path, epochs=2, precision="float32", verbose=0)
    assert (state.best_epoch, set(state.history)) == (2, {"accuracy", "loss"})
    weights = [build(tiny.RECIPE, 2) for _ in range(2)]
    weights[0].load_weights(tmp_path / "best.weights.h5")
    trainable(tiny.RECIPE, weights[1], steps=1).load_weights(tmp_path / "epoch-2.weights.h5")
    for a, b in zip(*(each.get_weights() for each in weights), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_score_is_trained_by_squared_error_and_judged_as_published(tmp_path: Path) -> None:
    data = as_published(SCORED, tiny.dataset())
    result = train(SCORED, data, run=tmp_path, precision="float32", verbose=0)
    assert (result.images, result.epochs, result.weights) == (100, 3, 4)
    reached = result.metrics
    assert reached["mean_squared_error"] < 0.25
    assert reached["correlation"] > 0.9
    assert reached["accuracy"] > 0.9
    assert reached["test_accuracy"] > 0.8
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == reached


def test_classes_are_judged_by_accuracy_and_cross_entropy_on_the_test_split() -> None:
    image = keras.Input((8, 8, 3), dtype="uint8")
    surely_dark = keras.Model(image, brightness(image, 2) * 0 + np.log(np.array([3.0, 1.0])))
    reached = metrics(tiny.RECIPE, surely_dark, tiny.dataset())
    expected = -(np.log(0.75) + np.log(0.25)) / 2
    assert reached == {"test_accuracy": 0.5, "test_loss": pytest.approx(expected, rel=1e-5)}


def result(name: str, seed: int, **reached: float) -> Result:
    return Result(
        recipe=name,
        page=recipes.find(name).fingerprint(),
        seed=seed,
        precision="float32",
        cores=2,
        weights=1_234,
        images=60_000,
        epochs=5,
        seconds=90.0 * seed,
        metrics=reached,
    )


def test_the_page_has_a_row_for_every_tutorial_generated_from_the_results(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    for seed, accuracy in ((1, 0.98), (3, 0.99)):
        reproduction_page.note(
            page, result("digits_conv5", seed, test_accuracy=accuracy, test_loss=0.04)
        )
    reached = {"accuracy": 0.51, "correlation": 0.02, "mean_squared_error": 0.5}
    reproduction_page.note(page, result("cats_vs_dogs_mlp", 1, test_accuracy=0.495, **reached))
    rows = {line.split("`")[1]: line for line in page.read_text().splitlines() if "[`" in line}
    assert list(rows) == TUTORIALS
    row = "98.50 ± 0.71 %, loss 0.0400 ± 0.0000 | 1, 3 | 5 epochs of 60,000, 3.0 minutes, "
    row += "float32 on 2 processor cores | 1,234 |"
    assert row in rows["digits_conv5"]
    assert "98.73 % of the test images." in rows["digits_conv5"]
    assert (
        "51.0 %, correlation 0.020, squared error 0.500; 49.5 % of the test"
        in rows["cats_vs_dogs_mlp"]
    )
    assert "| – | – |" in rows["digits_plain"]


def test_results_of_an_older_recipe_are_left_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    held = result("digits_conv5", 1, test_accuracy=0.98, test_loss=0.04)
    reproduction_page.note(page, replace(held, page="older"))
    assert page.read_text().count("| – | – |") == len(TUTORIALS)


def test_a_page_that_cannot_be_written_is_reported_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    places = [f"--runs={tmp_path / 'runs'}", f"--page={tmp_path / 'file' / 'page.md'}"]
    assert main(["reproduce", "digits_conv5", f"--data-dir={tmp_path}", *places]) == 1
    assert "Cannot write" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_result_of_an_older_recipe_or_another_precision_does_not_count(tmp_path: Path) -> None:
    conv5 = recipes.find("digits_conv5")
    held = result(conv5.name, 1, test_accuracy=0.98, test_loss=0.04)
    file = tmp_path / "result.json"
    reproduction_page.write(file, held)
    assert reproduction_page.read(file, conv5) == held
    assert reproduction_page.read(file, conv5, precision="mixed_bfloat16") is None
    reproduction_page.write(file, replace(held, page="older"))
    assert reproduction_page.read(file, conv5) is None


def test_a_result_below_the_gate_is_shown_too(tmp_path: Path) -> None:
    conv5 = recipes.find("digits_conv5")
    run = reproduction_page.folder(tmp_path, conv5, 2)
    reproduction_page.write(
        run / reproduction_page.FILE, result(conv5.name, 2, test_accuracy=0.9, test_loss=0.04)
    )
    page = tmp_path / "page.md"
    arguments = ["digits_conv5", "--seeds=2", f"--runs={tmp_path}", f"--page={page}"]
    assert main(["reproduce", *arguments]) == 0
    assert "90.00 %" in page.read_text()


def test_reproduce_trains_scores_and_writes_the_page_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_tiny_data(tmp_path / "data")
    page, runs = tmp_path / "page.md", tmp_path / "runs"
    done = result("digits_plain", 1, test_accuracy=0.9, test_loss=0.3)
    first = reproduction_page.folder(runs, recipes.find(done.recipe), 1)
    reproduction_page.write(first / reproduction_page.FILE, replace(done, images=300, epochs=3))
    arguments = ["reproduce", "digits_plain", f"--data-dir={data}", f"--page={page}"]
    arguments += [f"--runs={runs}", "--seeds=1,2", "--precision=float32"]
    code = main(arguments)
    row = next(line for line in page.read_text().splitlines() if "`digits_plain`" in line)
    assert "| 1, 2 | 3 epochs of 300," in row
    reached = json.loads((runs / "reproduce/digits_plain-seed2/result.json").read_text())
    assert (reached["images"], set(reached["metrics"])) == (300, {"test_accuracy", "test_loss"})
    monkeypatch.setattr(
        "training.commands.reproduce.load", lambda *_, **__: pytest.fail("read data again")
    )
    page.unlink()
    assert main(arguments) == code
    assert row in page.read_text()


@pytest.mark.parametrize("command", ["train", "export"])
def test_a_recipe_with_one_score_is_neither_trained_to_publish_nor_exported(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "cats_vs_dogs_mlp"]) == 2
    assert "`reproduce cats_vs_dogs_mlp` trains it" in capsys.readouterr().err


def test_an_own_recipe_reproduces_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "cats_vs_dogs"]) == 2
    assert "No tutorial's recipe named 'cats_vs_dogs'. Known: cats_vs_d" in capsys.readouterr().err


def test_the_committed_page_is_up_to_date(tmp_path: Path) -> None:
    page = tmp_path / "reproduction.md"
    shutil.copytree(ROOT / "docs" / "reproduction", page.with_suffix(""))
    reproduction_page.write_page(page)
    assert page.read_text("utf-8") == (ROOT / "docs" / "reproduction.md").read_text("utf-8")
