import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np
import pytest

from tests.training import tiny
from training.errors import Diverged, Preempted, RunFailed, RunMismatch
from training.fitting import checkpoints, provenance
from training.fitting import fit as fitting
from training.fitting.batches import Batches
from training.fitting.checkpoints import State, read_state
from training.fitting.fit import fit
from training.fitting.signals import Sigterm
from training.modelling.network import SmoothedCrossEntropy, build, predict
from training.modelling.recipe import Recipe

FLIPPED = replace(tiny.RECIPE, augment=lambda: [keras.layers.RandomFlip(seed=1)])


class Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback that records the epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    def on_epoch_end(self, epoch: int, *_: object) -> None:
        self.epochs.append(epoch)


def train(
    run: Path, *, recipe: Recipe = tiny.RECIPE, epochs: int = 3, recorder: Recorder | None = None
) -> State:
    return fit(
        recipe,
        tiny.dataset(),
        run=run,
        epochs=epochs,
        precision="float32",
        callbacks=[recorder] if recorder else [],
        verbose=0,
    )


class Killed(Exception):
    pass


def kill_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = fitting.Checkpoint.on_epoch_begin

    def on_epoch_begin(self: fitting.Checkpoint, begun: int, *_: object) -> None:
        if begun == epoch:
            raise Killed
        begin(self, begun)

    monkeypatch.setattr(fitting.Checkpoint, "on_epoch_begin", on_epoch_begin)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, Path]:
    """Train a run without interruption; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return train(folder, recipe=FLIPPED), folder


@pytest.fixture
def finished(uninterrupted: tuple[State, Path], tmp_path: Path) -> Path:
    """Copy the finished run."""
    return Path(shutil.copytree(uninterrupted[1], tmp_path / "run"))


def test_training_learns(uninterrupted: tuple[State, Path]) -> None:
    state, _ = uninterrupted
    assert state.best_accuracy > 0.9
    assert len(state.history["val_loss"]) == state.epoch == 3


def test_a_killed_run_resumes_to_the_same_weights(
    uninterrupted: tuple[State, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, folder = uninterrupted
    with monkeypatch.context() as patch:
        kill_after(2, patch)
        with pytest.raises(Killed):
            train(tmp_path, recipe=FLIPPED)
    resumed = train(tmp_path, recipe=FLIPPED)
    assert (resumed.history, resumed.best_epoch) == (whole.history, whole.best_epoch)
    for name in ("best.weights.h5", "epoch-3.weights.h5"):
        assert numbers(tmp_path / name) == numbers(folder / name)


def stop(
    run: Path,
    patch: pytest.MonkeyPatch,
    *,
    hook: str,
    at: tuple[int, int],
    recorder: Recorder | None = None,
    ends: type[BaseException] = Preempted,
) -> None:
    """Train until SIGTERM arrives in a hook of Keras, in that epoch and step."""
    listening, original = Sigterm(), getattr(fitting.Checkpoint, hook)

    def hooked(self: fitting.Checkpoint, *given: Any, **named: Any) -> None:
        original(self, *given, **named)
        if (self._state.epoch, given[0] if hook == "on_train_batch_begin" else 0) == at:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with patch.context() as inside:
        inside.setattr(fitting, "SIGTERM", listening)
        inside.setattr(fitting.Checkpoint, hook, hooked)
        listening.listen()
        with pytest.raises(ends):
            train(run, recipe=FLIPPED, recorder=recorder)
    signal.signal(signal.SIGTERM, before)


def numbers(file: Path) -> dict[str, list[float]]:
    """Return all numbers of a checkpoint, the optimiser's included."""
    found: dict[str, list[float]] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.ravel(item[()]).tolist()

    with h5py.File(file) as held:
        held.visititems(note)
    return found


@pytest.mark.parametrize(
    ("hook", "at", "reached"),
    [
        ("on_train_batch_begin", (0, 1), (0, 2, "epoch-0-step-2.weights.h5")),
        ("on_train_batch_begin", (1, 2), (1, 3, "epoch-1-step-3.weights.h5")),
        ("on_train_batch_begin", (2, 3), (2, 4, "epoch-3.weights.h5")),  # validation is missing
        ("on_test_begin", (1, 0), (1, 4, "epoch-2.weights.h5")),
        ("on_epoch_begin", (1, 0), (1, 0, "epoch-1.weights.h5")),
        ("on_epoch_end", (2, 0), (2, 0, "epoch-2.weights.h5")),
    ],
)
def test_a_run_stopped_by_sigterm_resumes_at_that_step_to_the_same_bits(
    hook: str,
    at: tuple[int, int],
    reached: tuple[int, int, str],
    uninterrupted: tuple[State, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder()
    stop(tmp_path, monkeypatch, hook=hook, at=at, recorder=recorder)
    saved = read_state(tmp_path)
    assert (saved.epoch, saved.step, saved.checkpoint) == reached
    whole, folder = uninterrupted
    resumed = train(tmp_path, recipe=FLIPPED, recorder=recorder)
    assert recorder.epochs == [0, 1, 2]  # each once
    assert (resumed.history, resumed.best_epoch) == (whole.history, whole.best_epoch)
    for name in ("best.weights.h5", "epoch-3.weights.h5"):
        assert numbers(tmp_path / name) == numbers(folder / name)


def test_a_full_disk_while_saving_after_sigterm_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"partial-{os.getpid()}-epoch-0-step-2.weights.h5"
    file.mkdir()  # so it cannot be opened
    stop(tmp_path, monkeypatch, hook="on_train_batch_begin", at=(0, 1), ends=RunFailed)


def test_an_infinite_loss_stops_before_it_is_saved(tmp_path: Path) -> None:
    def optimizer(_steps: int) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(
            keras.optimizers.schedules.PiecewiseConstantDecay([5], [0.05, 1e38])
        )

    recipe = replace(tiny.RECIPE, optimizer=optimizer)
    for _ in range(2):  # the second run does not resume with NaN
        with pytest.raises(
            Diverged, match=r"The loss of tiny is not finite: epoch 2, step"
        ) as raised:
            train(tmp_path, recipe=recipe)
        assert raised.value.exit_code == 1
        assert read_state(tmp_path).epoch == 1
    saved = numbers(tmp_path / "epoch-1.weights.h5")
    assert all(np.isfinite(each).all() for each in saved.values())


def test_a_network_that_diverges_in_the_last_step_of_an_epoch_is_not_saved(tmp_path: Path) -> None:
    recipe = replace(
        tiny.RECIPE, batch_size=130, optimizer=lambda _steps: keras.optimizers.SGD(math.inf)
    )
    with pytest.raises(Diverged, match="epoch 1, step 1 of 1"):
        fit(recipe, tiny.dataset(), run=tmp_path, epochs=1, precision="float32", verbose=0)
    assert not (tmp_path / "state.json").exists()


def test_a_finished_run_is_not_trained_again(
    uninterrupted: tuple[State, Path], finished: Path
) -> None:
    assert train(finished, recipe=FLIPPED) == uninterrupted[0]


def test_the_best_weights_are_those_of_the_best_epoch(uninterrupted: tuple[State, Path]) -> None:
    state, folder = uninterrupted
    best = int(np.argmax(state.history["val_accuracy"])) + 1
    assert state.best_epoch == best
    assert {path.name for path in folder.iterdir()} == {
        "best.weights.h5",
        "epoch-2.weights.h5",
        "epoch-3.weights.h5",
        "state.json",
    }


def test_a_run_folder_of_another_run_is_refused(finished: Path) -> None:
    before = (finished / "state.json").read_bytes()
    with pytest.raises(RunMismatch, match="began with epochs 3, not 2"):
        train(finished, recipe=FLIPPED, epochs=2)
    assert (finished / "state.json").read_bytes() == before


@pytest.mark.parametrize(
    "edited", [replace(FLIPPED, batch_size=16), replace(FLIPPED, label_smoothing=0.1)]
)
def test_a_run_is_not_resumed_under_an_edited_recipe(finished: Path, edited: Recipe) -> None:
    with pytest.raises(RunMismatch, match="began with another recipe"):
        train(finished, recipe=edited)


def test_a_run_continues_in_its_own_precision_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"epochs": 2, "verbose": 0}
    with monkeypatch.context() as patch:
        kill_after(1, patch)
        with pytest.raises(Killed):
            fit(FLIPPED, tiny.dataset(), run=tmp_path, precision="mixed_bfloat16", **how)
    monkeypatch.setattr(fitting, "on_gpu", lambda: False)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert fitting.policy("auto") == "float32"
    assert fitting.policy("auto", tmp_path) == "mixed_bfloat16"
    monkeypatch.undo()
    fitting.check(FLIPPED, run=tmp_path, epochs=2)
    state = fit(FLIPPED, tiny.dataset(), run=tmp_path, precision="auto", **how)
    assert (state.epoch, state.precision) == (2, "mixed_bfloat16")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"seed": 2}, "seed 1, not 2"),
        ({"epochs": 2}, "epochs 3, not 2"),
        ({"precision": "mixed_bfloat16"}, "precision 'float32', not"),
        ({"recipe": replace(FLIPPED, batch_size=16)}, "another recipe"),
    ],
    ids=["seed", "epochs", "precision", "recipe"],
)
def test_a_mismatch_is_found_without_the_data(
    how: dict[str, Any], message: str, uninterrupted: tuple[State, Path]
) -> None:
    _, folder = uninterrupted
    fitting.check(FLIPPED, run=folder)
    with pytest.raises(RunMismatch, match=message):
        fitting.check(how.pop("recipe", FLIPPED), run=folder, **how)


def stopped(run: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stop a run after an epoch, and return its state as it is on disk."""
    with patch.context() as inside:
        kill_after(1, inside)
        with pytest.raises(Killed):
            train(run, recipe=FLIPPED)
    fields: dict[str, Any] = json.loads((run / "state.json").read_text())
    return fields


def test_a_run_resumed_by_other_code_is_reported_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path, monkeypatch)
    monkeypatch.setattr(provenance, "code", lambda: "edited")
    state = train(tmp_path, recipe=FLIPPED)
    assert "under other code or libraries: code" in caplog.text
    assert ", now edited. It resumes" in caplog.text
    assert [each["code"] for each in state.sources][1:] == ["edited"]
    assert read_state(tmp_path) == state


def test_a_run_resumed_by_the_same_code_has_one_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path, monkeypatch)
    assert len(train(tmp_path, recipe=FLIPPED).sources) == 1
    assert caplog.text == ""


def test_a_run_of_an_older_version_resumes_with_a_warning_to_the_same_bits(
    uninterrupted: tuple[State, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = stopped(tmp_path, monkeypatch)
    for name in ("sha256", "sources", "ended"):
        del fields[name]
    (tmp_path / "state.json").write_text(json.dumps(fields, indent=1))
    state = train(tmp_path, recipe=FLIPPED)
    assert "does not say which code it began with: an older version wrote it" in caplog.text
    assert (state.history, state.sources) == (uninterrupted[0].history, [])
    assert numbers(tmp_path / "best.weights.h5") == numbers(uninterrupted[1] / "best.weights.h5")


def test_a_run_is_not_resumed_in_another_precision(finished: Path) -> None:
    with pytest.raises(RunMismatch, match="precision 'float32', not 'mixed_bfloat16'"):
        fit(FLIPPED, tiny.dataset(), run=finished, epochs=3, precision="mixed_bfloat16")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"recipe": "tiny"}'])
def test_an_unreadable_state_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(RunFailed, match="holds no readable run"):
        train(tmp_path)


def test_the_state_is_readable_json(uninterrupted: tuple[State, Path]) -> None:
    assert json.loads((uninterrupted[1] / "state.json").read_text())["recipe"] == "tiny"


def test_training_under_mixed_precision_restores_the_policy(tmp_path: Path) -> None:
    recipe = replace(tiny.RECIPE, augment=lambda: [keras.layers.RandomFlip(seed=1)])
    state = fit(
        recipe, tiny.dataset(), run=tmp_path, epochs=1, precision="mixed_bfloat16", verbose=0
    )
    assert state.precision == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def test_training_batches_are_shuffled_each_epoch_and_equal_for_one_seed() -> None:
    data = tiny.split(130, 1)
    batches, again = Batches(data, 32, seed=1), Batches(data, 32, seed=1)
    first = batches[0][0]
    np.testing.assert_array_equal(first, again[0][0])
    batches.start_epoch(1)
    assert not np.array_equal(first, batches[0][0])
    again.start_epoch(1)
    np.testing.assert_array_equal(batches[0][0], again[0][0])


def test_training_drops_the_short_last_batch_and_validation_keeps_it() -> None:
    data = tiny.split(130, 1)
    assert len(Batches(data, 32, seed=1)) == 4
    validation = Batches(data, 32)
    assert sum(len(validation[n][1]) for n in range(len(validation))) == 130


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_equals_that_of_keras_on_smoothed_targets(smoothing: float) -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(16, 5)).astype(np.float32), rng.integers(0, 5, 16)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)(
        keras.ops.one_hot(labels, 5), logits
    )
    ours = SmoothedCrossEntropy(smoothing)(labels, logits)
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)


def test_the_target_of_an_outlier_is_the_uniform_distribution() -> None:
    logits = np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32)
    uniform = np.full((16, 5), 0.2, np.float32)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True)(uniform, logits)
    ours = SmoothedCrossEntropy(0.1)(np.full(16, -1), logits)
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)


def test_a_network_learns_to_be_unsure_of_outliers(tmp_path: Path) -> None:
    data = tiny.dataset()
    light = data.train.images[data.train.labels == 1]
    recipe = replace(tiny.RECIPE, epochs=6)

    def confidence(run: Path, outliers: np.ndarray | None) -> float:
        fit(recipe, replace(data, outliers=outliers), run=run, verbose=0)
        network = build(recipe, 2)
        checkpoints.load_weights(network, checkpoints.best(run))
        return float(keras.ops.softmax(predict(network, light))[:, 1].numpy().mean())

    # three of four light images say that they are of no class
    outliers = np.concatenate([light] * 3)
    assert confidence(tmp_path / "with", outliers) < 0.8 < confidence(tmp_path / "without", None)
