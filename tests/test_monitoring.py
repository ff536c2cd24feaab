"""The rules, alerts, dashboard and docs of monitoring are consistent."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tables import ROOT

RULES = ROOT / "deploy/prometheus"
SCENARIOS = sorted((RULES / "tests").glob("*.yml"))
BOARD = json.loads((ROOT / "deploy/grafana/convserve.json").read_text("utf-8"))
PANELS = [each for each in BOARD["panels"] if each["type"] != "row"]
PAGE = (ROOT / "docs/monitoring.md").read_text("utf-8")


@pytest.fixture
def promtool() -> Callable[..., None]:
    """Return the program, which must accept its arguments."""
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool, of Debian's package prometheus")

    def run(*arguments: object) -> None:
        command = ["promtool", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / f"{name}.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


RECORDS, ALERTS = rules("recording"), rules("alerts")


def expressions() -> Iterator[str]:
    """Yield every expression of the dashboard, with values for its variables."""
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    for each in (*asked, *(note["expr"] for note in BOARD["annotations"]["list"])):
        yield re.sub(r"\$(\w+)", lambda name: "5m" if name[1][0] == "_" else "a", each)


def identity(alert: dict[str, Any]) -> tuple[str, str, str]:
    """Return name, severity and window: two windows of one name may be equally severe."""
    labels = alert["labels"]
    return alert["alert"], labels["severity"], labels.get("window", "")


@pytest.mark.system
@pytest.mark.parametrize("file", ["recording.yml", "alerts.yml"])
def test_the_rules_are_valid(promtool: Callable[..., None], file: str) -> None:
    promtool("check", "rules", RULES / file)


@pytest.mark.system
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_not_before(
    promtool: Callable[..., None], scenario: Path
) -> None:
    promtool("test", "rules", scenario)


def expected() -> Iterator[tuple[str, set[tuple[str, str, str]]]]:
    """Yield the name of each tested alert, and which alerts of that name fire."""
    for file in SCENARIOS:
        for group in yaml.safe_load(file.read_text("utf-8"))["tests"]:
            for test in group.get("alert_rule_test", ()):
                fires = [
                    {"alert": test["alertname"], "labels": each["exp_labels"]}
                    for each in test["exp_alerts"]
                ]
                yield test["alertname"], {identity(each) for each in fires}


EXPECTED = list(expected())


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: "-".join(identity(alert)))
def test_each_alert_is_tested_on_both_sides(alert: dict[str, Any]) -> None:
    name, severity, window = identity(alert)
    sides = {
        any(fired[1] == severity and window in ("", fired[2]) for fired in fires)
        for tested, fires in EXPECTED
        if tested == name
    }
    assert sides == {True, False}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: "-".join(identity(alert)))
def test_each_alert_has_a_severity_and_a_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docs/monitoring.md#{alert['alert'].lower()}"
    assert f"\n### {alert['alert']}\n" in PAGE
    assert f"[{alert['alert']}](#{alert['alert'].lower()})" in PAGE


def test_the_docs_explain_exactly_the_alerts() -> None:
    assert set(re.findall(r"^### (.*)$", PAGE, re.MULTILINE)) == {each["alert"] for each in ALERTS}


def test_no_rule_divides_counts_of_two_moments() -> None:
    """A record of another group may be one interval older."""
    text = (RULES / "recording.yml").read_text("utf-8")
    for group in yaml.safe_load(text)["groups"]:
        own = {rule["record"] for rule in group["rules"]}
        for rule in group["rules"]:
            asked = set(re.findall(r"convserve:\w+", rule["expr"]))
            assert asked <= own, (rule["record"], asked - own)


def test_windows_have_the_spelling_that_the_docs_replace() -> None:
    windows = re.findall(r"\[.*?\]", " ".join(each["expr"] for each in RECORDS + ALERTS))
    assert set(windows) == {"[5m]", "[30m]", "[1h]", "[6h]", "[1d]"}
    assert {each["for"] for each in ALERTS} == {"5m"}


def test_every_queried_series_and_record_is_in_the_docs() -> None:
    series = set(re.findall(r"^\| `(convserve_\w+)`", PAGE, re.MULTILINE))
    first_cells = re.findall(r"^\| (`convserve:.*?) \|", PAGE, re.MULTILINE)
    records = {name for cell in first_cells for name in re.findall(r"`([\w:]+)`", cell)}
    assert records == {each["record"] for each in RECORDS}
    asked = " ".join([*(each["expr"] for each in RECORDS + ALERTS), *expressions()])
    names = set(re.findall(r"\bconvserve[_:]\w+", asked))
    plain = {re.sub(r"_(bucket|sum|count)$", "", each) for each in names}
    assert plain <= series | records


def test_every_record_is_queried() -> None:
    asked = " ".join([*(each["expr"] for each in RECORDS + ALERTS), *expressions()])
    assert all(re.search(rf"\b{each['record']}\b", asked) for each in RECORDS)


@pytest.mark.system
def test_every_expression_of_dashboard_and_docs_is_promql(
    promtool: Callable[..., None], tmp_path: Path
) -> None:
    printed = re.findall(r"```promql\n(.*?)\n```", PAGE, re.DOTALL)
    assert printed
    asked = [
        {"record": f"r{number}", "expr": each}
        for number, each in enumerate([*expressions(), *printed])
    ]
    file = tmp_path / "asked.yml"
    file.write_text(json.dumps({"groups": [{"name": "asked", "rules": asked}]}), "utf-8")
    promtool("check", "rules", file)


def test_panels_have_an_id_a_unit_a_description_and_a_query() -> None:
    assert set(Counter(each["id"] for each in BOARD["panels"]).values()) == {1}
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"]
        names = [target["refId"] for target in panel["targets"]]
        assert names
        assert len(names) == len(set(names))


def test_panels_do_not_overlap() -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken.update(
            (at["x"] + right, at["y"] + down) for right in range(at["w"]) for down in range(at["h"])
        )
    assert set(taken.values()) == {1}


def test_the_dashboard_uses_its_variables_and_names_no_prometheus() -> None:
    text = json.dumps(BOARD)
    known = {each["name"] for each in BOARD["templating"]["list"]}
    assert known == {"datasource", "model", "version", "window"}
    assert set(re.findall(r"\$\{?(\w+)", text)) == known | {"__rate_interval", "__all"}
    assert set(re.findall(r'"uid": "(.*?)"', text)) == {"${datasource}", BOARD["uid"]}


@pytest.mark.system
def test_the_scrape_config_is_valid(promtool: Callable[..., None], tmp_path: Path) -> None:
    (config,) = re.findall(r"```yaml\n(global:.*?)```", PAGE, re.DOTALL)
    read = yaml.safe_load(config)
    assert {ROOT / each for each in read["rule_files"]} == set(RULES.glob("*.yml"))
    (job,) = read["scrape_configs"]
    assert f'up{{job="{job["job_name"]}"}}' in next(
        each["expr"] for each in ALERTS if each["alert"] == "ConvserveReplicaDown"
    )
    file = tmp_path / "prometheus.yml"
    file.write_text(config, "utf-8")
    promtool("check", "config", "--syntax-only", file)


@pytest.mark.system
def test_a_day_can_be_played_in_two_minutes(promtool: Callable[..., None], tmp_path: Path) -> None:
    (script,) = re.findall(r"\$ sed '(.*)' deploy/prometheus/alerts.yml", PAGE)
    for file in RULES.glob("*.yml"):
        done = subprocess.run(["sed", script, file], capture_output=True, text=True, check=True)
        assert not re.search(r"\[\d+[hd]\]|\[\d+m\d|for: 5m$", done.stdout, re.MULTILINE)
        quick = tmp_path / file.name
        quick.write_text(done.stdout, "utf-8")
        promtool("check", "rules", quick)
