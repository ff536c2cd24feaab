"""The benchmarks run and write their tables; the figures are not asserted."""

import re
from pathlib import Path

import pytest

from bench.robustness import footprint, hostile, kills, overload, reloads, soak
from tests.bench.needs import needs

ROW = re.compile(r"^\| .* \| (yes|\*\*no\*\*) \|$", re.MULTILINE)


def section(page: Path, name: str) -> str:
    return page.read_text("utf-8").partition(f"<!-- {name} -->")[2].partition("<!--")[0]


def test_the_footprint_is_measured(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "STARTS", 1)
    monkeypatch.setattr(footprint, "SETTLE", 0.5)
    assert footprint.main(["--seconds=0.5", "--page", str(page)]) in (0, 1)
    table = section(page, "footprint")
    assert len(ROW.findall(table)) == 6
    assert "0.5 seconds each" in table
    assert re.search(r"^\| outbound .* \| none \| none \| yes \|$", table, re.MULTILINE)


def test_killed_workers_break_no_promise_on_other_connections(page: Path) -> None:
    few = ["--seconds=3", "--every=1", "--clients=4"]
    assert kills.main([*few, "--page", str(page)]) in (0, 1)
    table = section(page, "kills")
    assert table.startswith("\n4 clients for 3 seconds, ")
    assert ROW.search(table)


def test_hostile_images_are_posted_and_files_too(page: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "text.txt").write_text("not an image")
    few = [str(folder), "--count=20", "--save", str(tmp_path / "saved")]
    assert hostile.main([*few, "--page", str(page)]) == 0
    assert "the files of 1 folders" in section(page, "hostile")
    assert "63 requests." in section(page, "hostile")
    assert not (tmp_path / "saved").exists()


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        hostile.main([str(tmp_path / "nothing")])


def test_a_soak_writes_its_table_its_csv_and_its_plot(page: Path, tmp_path: Path) -> None:
    few = ["--seconds=4", "--every=0.5", "--out", str(tmp_path)]
    assert soak.main([*few, "--page", str(page)]) in (0, 1)
    table = section(page, "soak")
    assert re.search(r"publications and removals that did not .* \| 0 \| 0 \| yes \|", table)
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "soak.csv").read_text().startswith("second,pss_mb,workers,requests,")
    assert ",published" in (tmp_path / "soak.csv").read_text()


def test_reloads_print_their_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert reloads.main(["--reloads=3", "--clients=1"]) == 0
    rows = re.findall(r"^\| (\d+) \|.*\| 0 \|$", capsys.readouterr().out, re.MULTILINE)
    assert rows == ["1", "3"]


@needs("wrk", "nginx")
def test_overload_writes_its_table(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "ROUNDS", 1)
    few = ["--seconds=1", "--window=1", "--model=digits", "--bad", "aborted"]
    assert overload.main([*few, "--page", str(page)]) in (0, 1)
    table = section(page, "overload")
    assert "`/healthz` in the storm, median · p99 · slowest" in table
    assert "50 × aborted: normal traffic beside ÷ alone" in table
