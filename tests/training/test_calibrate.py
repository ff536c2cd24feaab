import numpy as np
import pytest

from training import calibrate


def overconfident(scale: float) -> tuple[calibrate.Floats, calibrate.Labels]:
    """Logits whose labels were drawn from their own probabilities, then multiplied by ``scale``."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (20_000, 4)).astype(np.float32)
    chance = calibrate.softmax(logits).cumsum(axis=1)
    labels = (rng.random((len(logits), 1)) > chance).sum(axis=1).clip(0, 3)
    return logits * np.float32(scale), labels


def test_softmax_survives_large_logits() -> None:
    logits = np.array([[1000.0, 0.0, -1000.0]], np.float32)
    assert calibrate.softmax(logits).tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_wrong_scale(scale: float) -> None:
    assert calibrate.temperature(*overconfident(scale)) == pytest.approx(scale, rel=0.05)


def test_the_temperature_lowers_the_calibration_error() -> None:
    logits, labels = overconfident(3.0)
    before = calibrate.calibration_error(calibrate.softmax(logits), labels)
    scaled = logits / np.float32(calibrate.temperature(logits, labels))
    assert before > 0.1
    assert calibrate.calibration_error(calibrate.softmax(scaled), labels) < 0.02


def test_a_sure_and_right_answer_has_no_calibration_error() -> None:
    answers = np.array([[1, 0], [0, 1]], np.float32)
    assert calibrate.calibration_error(answers, np.array([0, 1])) == 0
    assert calibrate.calibration_error(answers, np.array([1, 0])) == 1


def test_the_baseline_counts_classes_and_confidence() -> None:
    answers = np.array([[0.95, 0.05], [1.0, 0.0], [0.45, 0.55], [0.2, 0.8]], np.float32)
    baseline = calibrate.baseline(answers, ("cat", "dog"))
    assert baseline["classes"] == {"cat": 0.5, "dog": 0.5}
    assert baseline["confidence"] == [0, 0, 0, 0, 0, 0.25, 0, 0, 0.25, 0.5]
