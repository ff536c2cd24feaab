"""The benchmarks run and write their tables; the figures are not asserted."""

import re
from pathlib import Path

import pytest

from bench.accuracy import drift, feedback, ids
from tests.bench.needs import needs
from tests.tiny_data import write_tiny_data


@needs("postgres", "prometheus")
def test_labels_are_counted_exactly_while_workers_are_killed(
    accuracy_page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "SETTLED", 1.0)
    few = ["--posts=300", "--clients=4", "--every=0.25"]
    assert feedback.main([*few, "--page", str(accuracy_page)]) == 0
    assert re.search(r"^\| .* \| yes \|$", accuracy_page.read_text(), re.MULTILINE)


@needs("postgres", "prometheus", "nginx")
def test_two_days_are_run_and_drawn(
    accuracy_page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, data = tmp_path / "drift.png", write_tiny_data(tmp_path / "data")
    few = ["--day=6", "--rate=32", f"--plot={plot}", f"--data-dir={data}"]
    assert drift.main([*few, "--page", str(accuracy_page)]) in (0, 1)
    row = r"^\| requests that failed \| 0 \| 0 \| yes \|$"
    assert re.search(row, capsys.readouterr().out, re.MULTILINE)
    assert plot.read_bytes().startswith(b"\x89PNG")


@needs("wrk")
def test_the_costs_of_ids_and_scrapes_are_measured(
    accuracy_page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "SCRAPES", 5)
    monkeypatch.setattr(ids, "FORMS", 1)
    few = ["--seconds=1", "--rounds=1", "--models=digits"]
    assert ids.main([*few, "--page", str(accuracy_page)]) in (0, 1)
    assert re.search(r"^\| a scrape after [1-9]", accuracy_page.read_text(), re.MULTILINE)
