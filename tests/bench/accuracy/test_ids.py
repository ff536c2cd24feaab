import pytest

from bench.accuracy import ids


@pytest.mark.parametrize(("seconds", "kept"), [(0.00002, True), (0.00004, False)])
def test_ids_that_cost_too_much_break_a_promise(seconds: float, kept: bool) -> None:
    rounds = [ids.Round(seconds, 0.001, 0.0015)] * 3
    rows = ids.judge_kind(ids.Kind("digits", 1), rounds)
    assert all(each.kept for each in rows) is kept
    assert rows[0].measured.startswith(f"{seconds / 0.001:.2%} (")


@pytest.mark.parametrize(
    ("milliseconds", "labels", "kept"), [(20.0, 9, True), (60.0, 9, False), (20.0, 0, False)]
)
def test_a_slow_scrape_or_one_without_labels_breaks_a_promise(
    milliseconds: float, labels: int, kept: bool
) -> None:
    rows = ids.judge_scrapes([milliseconds] * 3, 100_000, labels)
    assert all(each.kept for each in rows) is kept
