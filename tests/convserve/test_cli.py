"""The command ``convserve`` starts either half, with the options as they are."""

import subprocess
import sys

import pytest

from convserve import __main__ as cli


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convserve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("command", "half"),
    [("serve", "usage: python -m serving"), ("train", "usage: python -m training train")],
)
def test_a_command_runs_its_half(command: str, half: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(half)


def test_the_exit_code_is_that_of_the_half() -> None:
    done = run("serve", "--no-such-option")
    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-option" in done.stderr


def test_options_arrive_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, list[str]]] = []

    def start(module: str, *, run_name: str, alter_sys: bool) -> None:
        assert (run_name, alter_sys) == ("__main__", True)
        started.append((module, sys.argv[1:]))

    monkeypatch.setattr("runpy.run_module", start)
    monkeypatch.setattr(sys, "argv", ["convserve", "train", "digits", "--seed", "2"])
    assert cli.main() == 0
    assert cli.main(["serve", "--check"]) == 0
    assert started == [("training", ["train", "digits", "--seed", "2"]), ("serving", ["--check"])]


def test_an_unknown_command_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serv"]) == 2
    assert capsys.readouterr().err == (
        "convserve: No command named 'serv'. Did you mean serve? Known commands: serve, train.\n"
    )


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert all(f"\n  {name} " in shown.out for name in cli.COMMANDS)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == shown.out
