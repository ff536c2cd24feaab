import math

import pytest

from bench.reporting import figures


def test_a_percentile_is_one_of_the_values() -> None:
    values, shares = [5.0, 1.0, 4.0, 2.0, 3.0], (0, 0.5, 0.8, 0.81, 1)
    assert [figures.percentile(values, share) for share in shares] == [1, 3, 4, 5, 5]
    assert math.isnan(figures.percentile([], 0.5))


def test_ratios_are_taken_within_rounds() -> None:
    assert figures.ratios([30, 10, 40], [10, 10, 10]) == "3.00 (1.00–4.00)"
    assert figures.ratios([math.nan, 10], [10, 5]) == "2.00 (2.00–2.00)"
    assert figures.ratios([math.nan], [10]) == "void"


def test_each_value_comes_first_in_turn() -> None:
    assert [figures.rotated("abc", by)[0] for by in range(4)] == ["a", "b", "c", "a"]


def test_a_call_is_timed() -> None:
    calls: list[int] = []
    seconds = figures.seconds_per_call(lambda: calls.append(0), 0.01, 100)
    assert len(calls) % 100 == 0
    assert 0.01 / len(calls) <= seconds < 0.1


def test_a_table_replaces_the_text_between_its_marks() -> None:
    page = "above\n<!-- it -->\nold\nolder\n<!-- end of it -->\nbelow\n"
    expected = "above\n<!-- it -->\nnew\n<!-- end of it -->\nbelow\n"
    assert figures.between(page, "it", "new") == expected
    with pytest.raises(ValueError, match="one place for the table 'other'"):
        figures.between(page, "other", "new")
