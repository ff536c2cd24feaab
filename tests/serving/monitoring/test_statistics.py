"""The statistics agree with published figures."""

import math

import pytest

from serving.monitoring.statistics import bin_of, calibration_error, psi, wilson


@pytest.mark.parametrize(
    ("correct", "labels", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_match_the_literature(correct: int, labels: int, low: float, high: float) -> None:
    assert wilson(correct, labels) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_lies_within_zero_and_one() -> None:
    for labels in range(1, 500):
        assert wilson(0, labels)[0] >= 0
        assert wilson(labels, labels)[1] <= 1


def test_calibration_error_weights_bins_by_their_labels() -> None:
    bins = [(10, 5, 7.0), (0, 0, 0.0), (90, 81, 81.0)]
    assert calibration_error(bins) == pytest.approx(0.02)
    assert calibration_error([(1, 1, 0.5)]) == 0.5
    assert calibration_error([]) == 0.0


def test_psi_is_zero_without_a_shift_and_finite_with_an_empty_class() -> None:
    assert psi({"a": 30, "b": 70}, {"a": 0.3, "b": 0.7}) == pytest.approx(0.0)
    expected = (0.8 - 0.5) * math.log(0.8 / 0.5) + (0.2 - 0.5) * math.log(0.2 / 0.5)
    assert psi({"a": 80, "b": 20}, {"a": 0.5, "b": 0.5}) == pytest.approx(expected)
    expected = (1 - 0.5) * math.log(1 / 0.5) + (1e-4 - 0.5) * math.log(1e-4 / 0.5)
    assert psi({"a": 100}, {"a": 0.5, "b": 0.5}) == pytest.approx(expected)
    assert psi({"a": 50, "b": 50}, {"a": 1.0, "b": 0.0}) == pytest.approx(
        (0.5 - 1) * math.log(0.5) + (0.5 - 1e-4) * math.log(0.5 / 1e-4)
    )
    assert psi({}, {"a": 0.5, "b": 0.5}) == 0.0


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [
        (0.0, 0),
        (0.05, 0),
        (0.1, 0),
        (0.1000001, 1),
        (0.95, 9),
        (0.9, 8),
        (1.0, 9),
        (0.3, 2),
        (1.1, 9),
    ],
)
def test_a_bin_includes_its_upper_edge(confidence: float, expected: int) -> None:
    assert bin_of(confidence) == expected
