"""The start: the exit code of the check in the child is that of the command."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.running import ROOT, command_line

PROGRAM = """
import os, pathlib, sys
from serving.monitoring import run_dir
from serving.server import launch
create = run_dir.create
run_dir.create = lambda: create(pathlib.Path(sys.argv[1]))
sys.exit(launch.serve(lambda: {check}, workers=0))
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "no.such.host.invalid", "[::1]"])
def test_an_address_that_cannot_be_listened_on_stops_the_start(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.bind(("::1" if ":" in host else "127.0.0.1", 0))
        taken.listen()
        bind = f"{host}:{taken.getsockname()[1]}"
        ended = command_line(ROOT / "models", bind=bind)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"serving: Cannot listen on '{bind}', the value of CONVSERVE_BIND: " in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("check", "code", "message"),
    [
        ("1", 1, ""),
        ("2", 2, ""),
        ("os.kill(os.getpid(), 9)", 1, "serving: The check of the models was ended by signal 9.\n"),
    ],
)
def test_a_failed_check_stops_the_start_and_leaves_no_files(
    tmp_path: Path, check: str, code: int, message: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(check=check), tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", message)
    assert not list(tmp_path.iterdir())
