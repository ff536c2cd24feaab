import subprocess
import sys
from pathlib import Path

import pytest

from training.__main__ import main


def test_list_names_every_recipe_and_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["digits_adadelta", "digits"] for line in lines)
    assert all("at least" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "dogs"], "No recipe or model named 'dogs'"),
        (["export", "dogs"], "No recipe or model named 'dogs'"),
        (["evaluate", "dogs"], "No recipe or model named 'dogs'"),
        (["evaluate", "digits/first"], "A version is a positive integer, not 'first'"),
        (["evaluate", "cifar10", "--photographed"], "--photographed is for digits over HTTP"),
        (["evaluate", "digits", "--models", "nowhere"], "No version 1 in nowhere/digits"),
        (["export", "digits", "--runs", "nowhere"], "No run in nowhere/digits_adadelta"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_and_exits_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_does_not_exist_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["train", "digits", "--fast"])
    assert raised.value.code == 2
    assert "--fast" in capsys.readouterr().err


def test_the_help_comes_without_loading_keras() -> None:
    code = (
        "import sys; from training.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "evaluate" in done.stdout
