"""The files in deploy/ match the programs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tables import ROOT
from training.commands.options import parser
from training.errors import BelowGate, DataError, HostLost, Preempted, UsageError
from training.fitting import launcher

MANIFEST = ROOT / "deploy/kubernetes/training-job.yaml"
OBJECTS = {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text("utf-8"))}
JOB, SERVICE = OBJECTS["Job"], OBJECTS["Service"]
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
ENVIRONMENT = {each["name"]: each["value"] for each in CONTAINER["env"]}


def test_the_job_runs_a_command_of_the_training_half() -> None:
    options = parser().parse_args(CONTAINER["args"])
    mounted = {Path(mount["mountPath"]) for mount in CONTAINER["volumeMounts"]}
    assert {options.data_dir, options.runs, options.models, Path("/tmp")} == mounted
    volumes = re.search(r"VOLUME (.*)", (ROOT / "Dockerfile.train").read_text("utf-8"))
    assert volumes
    assert set(map(Path, yaml.safe_load(volumes[1]))) == mounted - {Path("/tmp")}


def test_every_pod_of_the_job_finds_its_host() -> None:
    options = parser().parse_args(CONTAINER["args"])
    count = JOB["spec"]["completions"]
    assert JOB["spec"]["parallelism"] == count
    assert JOB["spec"]["completionMode"] == "Indexed"
    for index in range(count):
        environment = ENVIRONMENT | {"JOB_COMPLETION_INDEX": str(index)}
        (port,) = SERVICE["spec"]["ports"]
        first = f"{JOB['metadata']['name']}-0.{SERVICE['metadata']['name']}:{port['port']}"
        assert launcher.find(options, environment) == launcher.Hosts(first, count, index)


def test_the_service_names_the_pods() -> None:
    assert POD["subdomain"] == SERVICE["metadata"]["name"]
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert list(SERVICE["spec"]["selector"].values()) == [JOB["metadata"]["name"]]


@pytest.mark.parametrize(
    ("action", "errors"),
    [("FailJob", {UsageError, DataError, BelowGate}), ("Ignore", {Preempted, HostLost})],
)
def test_the_exit_codes_decide_the_retries_of_the_job(action: str, errors: set[Any]) -> None:
    rules = [
        rule
        for rule in JOB["spec"]["podFailurePolicy"]["rules"]
        if rule["action"] == action and "onExitCodes" in rule
    ]
    codes = {code for rule in rules for code in rule["onExitCodes"]["values"]}
    assert codes == {error.exit_code for error in errors}
    assert all(rule["onExitCodes"]["containerName"] == CONTAINER["name"] for rule in rules)


def test_a_pod_has_time_to_stop() -> None:
    assert POD["restartPolicy"] == "Never"
    assert POD["terminationGracePeriodSeconds"] > 2 * launcher.GRACE


def test_both_serving_extras_name_the_same_packages() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    serve, gpu = (
        {each for each in extras[name] if not each.startswith("onnxruntime")}
        for name in ("serve", "serve-gpu")
    )
    assert serve == gpu
    for name in ("serve", "serve-gpu", "bench", "dev"):
        pins = (ROOT / f"requirements/{name}.txt").read_text("utf-8")
        for each in serve:
            package = re.split("[>[]", each)[0]
            assert re.search(rf"^{package}(\[.*\])?==", pins, re.MULTILINE), each


def test_commit_hooks_and_hosted_ci_run_what_make_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    lint = (ROOT / "Makefile").read_text("utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    programs = {hook["entry"].split()[0] for repo in hooks for hook in repo["hooks"]}
    assert programs == set(re.findall(r"\S+/bin/\S+", lint))
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert {"run": "make check"} in workflow["jobs"]["check"]["steps"]
