"""``python -m serving``: what stops the start, with real processes."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import serving
from tests.serving.running import ROOT, command_line


def test_the_version_is_stated_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    file = ROOT / project["tool"]["hatch"]["version"]["path"]
    # hatchling's default pattern
    found = re.search(
        r"(?im)^(__version__|VERSION) *= *(['\"])v?(?P<version>.+?)\2", file.read_text()
    )
    assert found
    assert found["version"] == serving.__version__


def without_extra(packages: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the service where only the dependencies of ``pip install .`` are installed."""
    site = next(Path(each) for each in sys.path if Path(each, "numpy").is_dir())
    for name in ("numpy", "numpy.libs", "PIL", "pillow.libs"):
        if (site / name).exists():
            (packages / name).symlink_to(site / name)
    return subprocess.run(
        [sys.executable, "-S", "-m", "serving", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", [[], ["--check"], ["tune"], ["export-feedback"]], ids=" ".join)
def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, command: list[str]) -> None:
    ended = without_extra(tmp_path, *command)
    assert (ended.returncode, ended.stdout) == (2, "")
    sentence = (
        r"serving: (\w+) is not installed. Install the extra: pip install 'convserve\[serve\]'.\n"
    )
    found = re.fullmatch(sentence, ended.stderr)
    assert found, ended.stderr
    assert found[1] in {"onnxruntime", "pyspng", "sqlalchemy"}


def test_help_needs_no_extra_and_lists_the_settings(tmp_path: Path) -> None:
    ended = without_extra(tmp_path, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "CONVSERVE_MAX_PIXELS" in ended.stdout


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["serve", "check"])
def test_options_of_gunicorn_in_the_environment_stop_the_start(
    models: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--bind 127.0.0.1:0 --worker-class sync")
    ended = command_line(models, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("serving: GUNICORN_CMD_ARGS is set. Expected no such variable:")
