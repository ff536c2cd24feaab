"""The table of commands in bench/README.md is complete, and every command starts."""

import importlib
import re
from pathlib import Path

import pytest

from bench.rig.service import ROOT

README = (ROOT / "bench/README.md").read_text("utf-8")
DOCUMENTED = set(re.findall(r"python -m bench\.([\w.]+)", README))
MADE = {"throughput.serving": "make bench", "throughput.training": "make bench-train"}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "bench").with_suffix("").parts)


COMMANDS = {
    module(path)
    for path in (ROOT / "bench").rglob("*.py")
    if re.search(r"\b(parser|benchmark)\(", path.read_text("utf-8"))
} - {"reporting.promises"}


def test_every_command_is_documented() -> None:
    assert DOCUMENTED | MADE.keys() == COMMANDS
    assert all(f"`{command}`" in README for command in MADE.values())


@pytest.mark.parametrize("name", sorted(COMMANDS - {"throughput.training"}))  # imports Keras
def test_every_command_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"bench.{name}").main(["--help"])
    assert ended.value.code == 0
    assert f"python -m bench.{name}" in capsys.readouterr().out
