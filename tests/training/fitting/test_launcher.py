import os
import signal
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest

from training.__main__ import main
from training.errors import HostLost, Preempted, TrainingError, UsageError
from training.fitting import launcher
from training.fitting.launcher import Hosts
from training.fitting.signals import Sigterm

PAIR = "10.0.0.1:4242,10.0.0.2:4242"
TORCHRUN = {"MASTER_ADDR": "train-0", "MASTER_PORT": "4242", "WORLD_SIZE": "4", "RANK": "3"}
LAUNCHERS = (*TORCHRUN, "JOB_COMPLETION_INDEX", "TORCHELASTIC_USE_AGENT_STORE")


def found(
    environment: dict[str, str], *, addresses: str | None = None, index: str | None = None
) -> Hosts | None:
    return launcher.find(Namespace(hosts=addresses, host_index=index), environment)


@pytest.mark.parametrize(
    "environment",
    [{}, {"JOB_COMPLETION_INDEX": "1"}, {"MASTER_ADDR": "a", "MASTER_PORT": "1"}, {"RANK": ""}],
    ids=str,
)
def test_without_other_hosts_it_trains_alone(environment: dict[str, str]) -> None:
    assert found(environment) is None


def test_options_name_the_hosts() -> None:
    assert found({}, addresses=PAIR, index="1") == Hosts("10.0.0.1:4242", 2, 1)


def test_a_launcher_names_the_hosts() -> None:
    assert found(TORCHRUN) == Hosts("train-0:4242", 4, 3)


def test_an_indexed_job_has_the_index_of_this_host() -> None:
    environment = {**TORCHRUN, "RANK": "", "JOB_COMPLETION_INDEX": "2"}
    assert found(environment) == Hosts("train-0:4242", 4, 2)
    assert found({"JOB_COMPLETION_INDEX": "1"}, addresses=PAIR) == Hosts("10.0.0.1:4242", 2, 1)


def test_one_host_can_be_a_job() -> None:
    assert found({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) == Hosts("train-0:4242", 1, 0)


@pytest.mark.parametrize(
    ("options", "changed", "message"),
    [
        (["--host-index=0"], {}, "--host-index needs --hosts"),
        (["--hosts", PAIR], {}, "need RANK, or --hosts and --host-index"),
        (["--hosts", PAIR, "--host-index=2"], {}, "--host-index is 2. Expected 0 to 1"),
        (["--hosts", PAIR, "--host-index=one"], {}, "'one'. Expected a whole number from 0"),
        (
            ["--hosts", "a:1,a:1", "--host-index=0"],
            {},
            "has 2 addresses, 1 of them different. Expected: 2",
        ),
        (["--hosts", "a,b", "--host-index=0"], {}, "Expected HOST:PORT, not 'a'"),
        (["--hosts", "a:1,b:70000", "--host-index=0"], {}, "Expected HOST:PORT, not 'b:70000'"),
        (["--hosts", "", "--host-index=0"], {}, "Expected HOST:PORT, not ''"),
        (["--hosts", PAIR], TORCHRUN, "has 2 addresses, 2 of them different. Expected: 4"),
        ([], {**TORCHRUN, "WORLD_SIZE": "0"}, "WORLD_SIZE is '0'. Expected a whole number from 1"),
        ([], {**TORCHRUN, "WORLD_SIZE": ""}, "need WORLD_SIZE"),
        ([], {**TORCHRUN, "RANK": ""}, "need RANK"),
        ([], {**TORCHRUN, "RANK": "4"}, "RANK is 4. Expected 0 to 3"),
        ([], {**TORCHRUN, "RANK": "-1"}, "RANK is '-1'"),
        ([], {**TORCHRUN, "MASTER_PORT": ""}, "Expected HOST:PORT, not 'train-0:'"),
        ([], {**TORCHRUN, "MASTER_ADDR": ""}, "Expected HOST:PORT, not ':4242'"),
        ([], {**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True"}, "torchrun listens"),
        ([], TORCHRUN, "on the JAX backend, not on 'tensorflow'"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)
def test_invalid_hosts_are_reported_and_exit_2(
    options: list[str],
    changed: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"KERAS_BACKEND": "tensorflow"} | changed).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_hosts_cannot_divide_is_refused() -> None:
    launcher.check_batch(Hosts("a:1", 4, 0), "digits", 128)
    with pytest.raises(UsageError, match="3 hosts cannot divide the batch of 128 images of digits"):
        launcher.check_batch(Hosts("a:1", 3, 0), "digits", 128)


@pytest.mark.parametrize(
    ("says", "does", "error"),
    [
        ("Gloo all-reduce failed: Connection closed by peer", "kill -ABRT $$", HostLost),
        ("absl::Status: DEADLINE_EXCEEDED: Deadline Exceeded", "kill -ABRT $$", HostLost),
        ("absl::Status: ALREADY_EXISTS: Aborted connect attempt", "kill -ABRT $$", UsageError),
        ("free(): invalid pointer", "kill -ABRT $$", TrainingError),
        ("", "kill -KILL $$", TrainingError),
        ("training: No recipe", "exit 2", SystemExit),
    ],
)
def test_a_host_ends_as_its_process(
    says: str,
    does: str,
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    python = tmp_path / "python"
    noise = "I0000 00:00:1795896684.54 26597 port.cc:153] oneDNN"
    python.write_text(f"#!/bin/sh\necho '{noise}' >&2\necho '{says}' >&2\n{does}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(error) as raised:
        launcher.train(Hosts("127.0.0.1:1", 2, 0), Namespace(arguments=[], backend=None), print)
    assert type(raised.value) is error
    written = capfd.readouterr().err
    assert says in written
    assert "oneDNN" not in written


PUBLISHING = """#!/bin/sh
(trap 'echo ended > {folder}/ended; exit 75' TERM
 echo > {folder}/begun
 while :; do sleep 0.05; done) &
while ! test -e {folder}/begun; do sleep 0.01; done
echo 'Gloo all-reduce failed' >&2
kill -ABRT $$
"""


def test_the_children_of_a_hosts_process_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(PUBLISHING.format(folder=tmp_path))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(HostLost):
        launcher.train(Hosts("127.0.0.1:1", 2, 0), Namespace(arguments=[], backend=None), print)
    assert (tmp_path / "ended").read_text() == "ended\n"


EXPORT = """#!/bin/sh
trap 'echo ended > {folder}/ended; exit 75' TERM
echo $$ > {folder}/pid
while :; do sleep 0.05; done
"""


def test_a_signal_lets_another_command_clean_up(
    tmp_path: Path, sigterm: Sigterm, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(EXPORT.format(folder=tmp_path))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))

    def terminate() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    with pytest.raises(Preempted):
        launcher.run(["export", "digits"], {})
    assert (tmp_path / "ended").read_text() == "ended\n"


def test_another_command_gets_its_arguments_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" $KERAS_BACKEND > {tmp_path}/given\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    launcher.run(["export", "--extra=labelled images"], {"KERAS_BACKEND": "tensorflow"})
    given = (tmp_path / "given").read_text()
    assert given == "-m training export --extra=labelled images tensorflow\n"
