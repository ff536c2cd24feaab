import numpy as np
import pytest

from training.evaluation import calibration


def overconfident(scale: float) -> tuple[calibration.Floats, calibration.Labels]:
    """Return logits multiplied by ``scale``, and labels drawn from their own probabilities."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (20_000, 4)).astype(np.float32)
    return logits * np.float32(scale), drawn(calibration.softmax(logits))


def drawn(chance: calibration.Floats) -> calibration.Labels:
    """Draw a label for each row by the probabilities of the row."""
    lots = np.random.default_rng(2).random((len(chance), 1))
    above = lots > chance.cumsum(axis=1)
    return np.asarray(above.sum(axis=1).clip(0, chance.shape[1] - 1), np.int64)


def test_softmax_survives_large_logits() -> None:
    logits = np.array([[1000.0, 0.0, -1000.0]], np.float32)
    assert calibration.softmax(logits).tolist() == [[1.0, 0.0, 0.0]]
    apart = np.array([[1000.0, 1000.0], [-1000.0, -1000.0]], np.float32)
    assert calibration.softmax(apart).tolist() == [[0.5, 0.5], [0.5, 0.5]]


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
def test_the_sets_have_the_promised_coverage(coverage: float) -> None:
    logits, labels = overconfident(3.0)  # the promise needs no calibrated probabilities
    answers = calibration.softmax(logits)
    held_out, seen = slice(0, 10_000), slice(10_000, None)
    threshold = calibration.thresholds(answers[held_out], labels[held_out])[coverage]
    sets = calibration.sets(answers[seen], labels[seen], threshold)
    assert sets.coverage == pytest.approx(coverage, abs=0.01)


def test_a_threshold_is_the_rank_that_the_theory_requires() -> None:
    true = np.linspace(
        0.01, 0.99, 99, dtype=np.float32
    )  # 99 images: ranks 90, 95 and 99 from the top
    answers = np.stack([true, 1 - true], axis=1)
    found = calibration.thresholds(answers, np.zeros(99, np.int64))
    assert found == {0.9: true[9], 0.95: true[4], 0.99: true[0]}


def test_too_few_images_yield_the_set_of_all_labels() -> None:
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


def test_the_baseline_counts_classes_confidence_and_typicality() -> None:
    answers = np.array([[0.95, 0.05], [1.0, 0.0], [0.45, 0.55], [0.2, 0.8]], np.float32)
    typicality = np.array([0, 0.05, 0.1, 1.0], np.float32)
    baseline = calibration.baseline(answers, typicality, ("cat", "dog"))
    assert baseline["classes"] == {"cat": 0.5, "dog": 0.5}
    assert baseline["confidence"] == [0, 0, 0, 0, 0, 0.25, 0, 0, 0.25, 0.5]
    assert baseline["typicality"] == [0.5, 0.25, 0, 0, 0, 0, 0, 0, 0, 0.25]


def test_softmax_is_the_normalised_exponential() -> None:
    logits = np.log(np.array([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]], np.float32))
    np.testing.assert_allclose(
        calibration.softmax(logits), [[0.125, 0.25, 0.625], [0.25, 0.25, 0.5]], rtol=1e-6
    )


def cross_entropy(logits: calibration.Floats, labels: calibration.Labels, t: float) -> float:
    chance = calibration.softmax(logits / np.float32(t)).astype(np.float64)
    return float(-np.log(chance[np.arange(len(labels)), labels]).mean())


def test_no_other_temperature_has_a_lower_loss() -> None:
    logits, labels = overconfident(2.0)
    found = calibration.temperature(logits, labels)
    least = cross_entropy(logits, labels, found)
    for factor in (0.99, 1.01):
        assert cross_entropy(logits, labels, found * factor) > least
    logits[0] *= 1000  # a loss of float32 would overflow
    assert np.isfinite(calibration.temperature(logits, labels))


def test_a_network_that_is_always_wrong_gets_the_highest_temperature() -> None:
    logits = np.tile(np.array([[3.0, 0.0], [0.0, 3.0]], np.float32), (20, 1))
    found = calibration.temperature(logits, logits.argmin(axis=1))
    assert found == pytest.approx(20.0, rel=0.01)


def test_each_bin_has_its_images_its_mean_confidence_and_its_accuracy() -> None:
    best = np.array([0.5, 0.55, 0.59, 0.6, 0.95, 1.0], np.float32)
    answers = np.stack([best, 1 - best], axis=1)
    count, mean, accuracy = calibration.reliability(answers, np.array([0, 1, 0, 0, 0, 1]))
    assert count.tolist() == [0, 0, 0, 0, 0, 3, 1, 0, 0, 2]
    assert mean.tolist() == pytest.approx([0, 0, 0, 0, 0, 0.5466667, 0.6, 0, 0, 0.975], rel=1e-5)
    assert accuracy.tolist() == pytest.approx([0, 0, 0, 0, 0, 2 / 3, 1, 0, 0, 0.5], rel=1e-6)
    error = (3 * abs(0.5466667 - 2 / 3) + 1 * 0.4 + 2 * 0.475) / 6
    assert calibration.calibration_error(answers, np.array([0, 1, 0, 0, 0, 1])) == pytest.approx(
        error, rel=1e-5
    )


def test_the_results_are_float32() -> None:
    answers = calibration.softmax(np.zeros((3, 2), np.float64))
    assert answers.dtype == np.float32
    _, mean, accuracy = calibration.reliability(answers, np.zeros(3, np.int64))
    assert mean.dtype == np.float32
    assert accuracy.dtype == np.float32


def test_one_wrong_image_has_the_error_of_its_confidence() -> None:
    assert calibration.calibration_error(np.array([[1.0, 0.0]], np.float32), np.array([1])) == 1


def test_no_images_have_no_calibration_error() -> None:
    assert calibration.calibration_error(np.zeros((0, 2), np.float32), np.zeros(0, np.int64)) == 0


@pytest.mark.parametrize(
    ("share", "bin_"), [(0.0, 0), (0.099, 0), (0.1, 1), (0.25, 2), (0.9, 9), (1.0, 9)]
)
def test_a_share_belongs_to_its_tenth(share: float, bin_: int) -> None:
    assert calibration.tenths(np.array([share], np.float32)).tolist() == [bin_]


def test_a_label_at_the_threshold_is_in_the_set() -> None:
    answers = np.array([[0.5, 0.3, 0.2]], np.float32)
    found = calibration.sets(answers, np.array([1]), float(answers[0, 1]))
    assert found == calibration.Sets(coverage=1.0, size=2.0, single=0.0, empty=0.0)


def test_the_shares_of_the_baseline_have_six_digits() -> None:
    answers = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.2, 0.65, 0.15]], np.float32)
    typical = np.ones(3, np.float32)
    baseline = calibration.baseline(answers, typical, ("cat", "dog", "bird"))
    assert baseline["classes"] == {"cat": 0.333333, "dog": 0.666667, "bird": 0.0}
    assert baseline["confidence"] == [0, 0, 0, 0, 0, 0, 0.333333, 0, 0, 0.666667]
    alone = calibration.baseline(answers[2:], typical[2:], ("cat", "dog", "bird"))
    assert alone["confidence"] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="longer"):
        calibration.baseline(answers, typical, ("cat",))
