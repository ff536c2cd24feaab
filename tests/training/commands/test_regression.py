import numpy as np
import pytest

from training.commands import regression

LABELS = np.array([0, 0, 1, 1])
SCORES = np.array([0.1, 0.5, 0.4, 0.9], np.float32)


def test_the_squared_error_is_the_mean_over_images() -> None:
    # (0.01 + 0.25 + 0.36 + 0.01) / 4
    assert regression.mean_squared_error(SCORES, LABELS) == pytest.approx(0.1575)


def test_the_correlation_is_pearsons() -> None:
    # deviations -0.375 0.025 -0.075 0.425 and ∓0.5: 0.35 / √(0.3275 × 1)
    assert regression.correlation(SCORES, LABELS) == pytest.approx(0.35 / 0.3275**0.5)
    assert regression.correlation(1 - SCORES, LABELS) == pytest.approx(-0.35 / 0.3275**0.5)


def test_scores_that_do_not_vary_have_no_correlation() -> None:
    assert regression.correlation(np.ones(4, np.float32), LABELS) == 0


@pytest.mark.parametrize(("threshold", "right"), [(0.0, 2), (0.3, 3), (0.45, 2), (0.6, 3)])
def test_a_score_above_the_threshold_means_the_second_class(threshold: float, right: int) -> None:
    assert regression.accuracy(SCORES, LABELS, threshold=threshold) == right / 4


def test_a_score_at_the_threshold_means_the_first_class() -> None:
    assert regression.accuracy(np.array([0.5], np.float32), np.array([0]), threshold=0.5) == 1


def test_the_best_threshold_is_the_lowest_of_the_best_ten() -> None:
    assert len(regression.THRESHOLDS) == 10
    assert regression.best_threshold(SCORES, LABELS) == 0.1  # 0.1 to 0.3 and 0.5 to 0.8 get 3 of 4
