import numpy as np
import pytest

from training.evaluation import calibration


def overconfident(scale: float) -> tuple[calibration.Floats, calibration.Labels]:
    """Logits whose labels were drawn from their own probabilities, then multiplied by ``scale``."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (20_000, 4)).astype(np.float32)
    return logits * np.float32(scale), drawn(calibration.softmax(logits))


def drawn(chance: calibration.Floats) -> calibration.Labels:
    """A label for each row, as likely as the row says."""
    lots = np.random.default_rng(2).random((len(chance), 1))
    above = lots > chance.cumsum(axis=1)
    return np.asarray(above.sum(axis=1).clip(0, chance.shape[1] - 1), np.int64)


def test_softmax_survives_large_logits() -> None:
    logits = np.array([[1000.0, 0.0, -1000.0]], np.float32)
    assert calibration.softmax(logits).tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_wrong_scale(scale: float) -> None:
    assert calibration.temperature(*overconfident(scale)) == pytest.approx(scale, rel=0.1)


def test_the_temperature_lowers_the_calibration_error() -> None:
    logits, labels = overconfident(3.0)
    before = calibration.calibration_error(calibration.softmax(logits), labels)
    scaled = logits / np.float32(calibration.temperature(logits, labels))
    assert before > 0.1
    assert calibration.calibration_error(calibration.softmax(scaled), labels) < 0.02


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_network_that_is_always_right_gets_the_lowest_temperature(count: int) -> None:
    logits = np.tile(np.array([[1.0, 0.0], [0.0, 2.0]], np.float32), (count, 1))
    found = calibration.temperature(logits, logits.argmax(axis=1))
    assert found == pytest.approx(calibration.COLDEST, rel=0.01)


@pytest.mark.parametrize("coverage", calibration.COVERAGES)
def test_the_sets_hold_the_truth_as_often_as_promised(coverage: float) -> None:
    logits, labels = overconfident(3.0)  # the promise needs no calibrated probabilities
    answers = calibration.softmax(logits)
    held_out, seen = slice(0, 10_000), slice(10_000, None)
    threshold = calibration.thresholds(answers[held_out], labels[held_out])[coverage]
    sets = calibration.sets(answers[seen], labels[seen], threshold)
    assert sets.coverage == pytest.approx(coverage, abs=0.01)


def test_a_threshold_is_the_rank_that_the_theory_asks_for() -> None:
    true = np.linspace(
        0.01, 0.99, 99, dtype=np.float32
    )  # 99 images: ranks 90, 95 and 99 from the top
    answers = np.stack([true, 1 - true], axis=1)
    found = calibration.thresholds(answers, np.zeros(99, np.int64))
    assert found == {0.9: true[9], 0.95: true[4], 0.99: true[0]}


def test_too_few_images_give_the_set_of_all_labels() -> None:
    answers = np.full((20, 2), 0.5, np.float32)
    found = calibration.thresholds(answers, np.zeros(20, np.int64))
    assert found == {0.9: 0.5, 0.95: 0.5, 0.99: 0.0}


def test_sets_are_counted_by_size() -> None:
    answers = np.array([[0.95, 0.05], [0.5, 0.5], [0.6, 0.4], [0.3, 0.7]], np.float32)
    found = calibration.sets(answers, np.array([0, 1, 1, 0]), 0.5)
    assert found == calibration.Sets(coverage=0.5, size=1.25, single=0.75, empty=0.0)
    assert calibration.sets(answers, np.array([0, 1, 1, 0]), 0.9).empty == 0.75


def test_a_sure_and_right_answer_has_no_calibration_error() -> None:
    answers = np.array([[1, 0], [0, 1]], np.float32)
    assert calibration.calibration_error(answers, np.array([0, 1])) == 0
    assert calibration.calibration_error(answers, np.array([1, 0])) == 1


def test_the_baseline_counts_classes_and_confidence() -> None:
    answers = np.array([[0.95, 0.05], [1.0, 0.0], [0.45, 0.55], [0.2, 0.8]], np.float32)
    baseline = calibration.baseline(answers, ("cat", "dog"))
    assert baseline["classes"] == {"cat": 0.5, "dog": 0.5}
    assert baseline["confidence"] == [0, 0, 0, 0, 0, 0.25, 0, 0, 0.25, 0.5]
