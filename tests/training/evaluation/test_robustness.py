import numpy as np
import pytest

from tests.tiny_data import squares
from training.data.splits import Split
from training.errors import UsageError
from training.evaluation import robustness
from training.evaluation.corruptions import sets
from training.evaluation.scoring import Score


def test_every_kind_is_scored_by_each_judge_and_averaged() -> None:
    images, labels = squares(2, side=28, channels=1, seed=1)
    seen: list[int] = []

    def half(changed: object, truth: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Score:
        return Score(len(truth) // 2, len(truth))

    def all_right(changed: "np.ndarray[tuple[int], np.dtype[np.uint8]]", _: object) -> Score:
        seen.append(len(changed))
        return Score(len(changed), len(changed))

    test = Split(images, labels.astype(np.int64))
    one, other = robustness.measure([half, all_right], "mnist", test, limit=10)
    assert seen == [10] * 15
    assert other["accuracy"] == other["geometry"] == 1
    assert (one["accuracy"], one["images"], one["benchmark"]) == (0.5, 10, "MNIST-C")
    assert list(one["kinds"]) == [kind.name for kind in sets.MNIST]


def test_the_parts_of_a_split_are_corrupted_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = squares(1, side=32, channels=3, seed=1)
    kind = sets.CIFAR10[0]
    monkeypatch.setattr(robustness, "CHUNK", 3 * 32 * 32)
    np.testing.assert_array_equal(robustness.corrupt(kind, images, 2), kind.apply(images, 2))


def test_a_data_set_without_a_benchmark_is_refused() -> None:
    nothing = Split(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64))
    with pytest.raises(UsageError, match="The data set brightness has no corruptions"):
        robustness.measure([], "brightness", nothing)


HELD = {
    "benchmark": "A set",
    "seed": 1,
    "images": 1000,
    "accuracy": 0.6,
    "kinds": {"fog": [0.8, 0.6], "snow": [0.6, 0.4]},
}


def test_the_table_has_a_row_for_each_kind_and_a_column_for_each_severity() -> None:
    assert robustness.table(HELD) == [
        "| Corruption | Mean | 1 | 2 |",
        "| --- | ---: | ---: | ---: |",
        "| fog | 70.00% | 80.00% | 60.00% |",
        "| snow | 50.00% | 60.00% | 40.00% |",
    ]
    assert robustness.summary(HELD) == (
        "**60.00%**, the mean of 2 kinds of corruption, each at 2 severities, on 1,000 test images "
        "(A set, seed 1)."
    )


def test_the_table_of_one_severity_has_a_row_for_each_group() -> None:
    one = {**HELD, "kinds": {"shear": [0.9], "fog": [0.5]}, "geometry": 0.9, "others": 0.5}
    assert robustness.table(one)[1:] == [
        "| --- | ---: |",
        "| geometry | 90.00% |",
        "| others | 50.00% |",
        "| shear | 90.00% |",
        "| fog | 50.00% |",
    ]
