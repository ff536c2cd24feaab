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
def test_nobody_told_of_other_hosts_trains_alone(environment: dict[str, str]) -> None:
    assert found(environment) is None


def test_options_name_the_hosts() -> None:
    assert found({}, addresses=PAIR, index="1") == Hosts("10.0.0.1:4242", 2, 1)


def test_a_launcher_names_the_hosts() -> None:
    assert found(TORCHRUN) == Hosts("train-0:4242", 4, 3)


def test_an_indexed_job_says_which_of_them_this_is() -> None:
    told = {**TORCHRUN, "RANK": "", "JOB_COMPLETION_INDEX": "2"}
    assert found(told) == Hosts("train-0:4242", 4, 2)
    assert found({"JOB_COMPLETION_INDEX": "1"}, addresses=PAIR) == Hosts("10.0.0.1:4242", 2, 1)


def test_one_host_is_a_job_too() -> None:
    assert found({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) == Hosts("train-0:4242", 1, 0)


@pytest.mark.parametrize(
    ("options", "changed", "message"),
    [
        (["--host-index=0"], {}, "give both"),
        (["--hosts", PAIR], {}, "need RANK, or --hosts and --host-index"),
        (["--hosts", PAIR, "--host-index=2"], {}, "--host-index is 2. Expected 0 to 1"),
        (["--hosts", PAIR, "--host-index=one"], {}, "'one'. Expected a whole number from 0"),
        (["--hosts", "a:1,a:1", "--host-index=0"], {}, "1 hosts in 2 places; expected 2"),
        (["--hosts", "a,b", "--host-index=0"], {}, "Expected HOST:PORT, not 'a'"),
        (["--hosts", "a:1,b:70000", "--host-index=0"], {}, "Expected HOST:PORT, not 'b:70000'"),
        (["--hosts", "", "--host-index=0"], {}, "Expected HOST:PORT, not ''"),
        (["--hosts", PAIR], TORCHRUN, "2 hosts in 2 places; expected 4"),
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
def test_hosts_that_cannot_be_are_told_and_exit_2(
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


def test_a_batch_that_hosts_cannot_share_is_refused() -> None:
    launcher.check_batch(Hosts("a:1", 4, 0), "digits", 128)
    with pytest.raises(UsageError, match="3 hosts cannot share the batch of 128 images of digits"):
        launcher.check_batch(Hosts("a:1", 3, 0), "digits", 128)


@pytest.mark.parametrize(
    ("says", "does", "error"),
    [
        ("Gloo all-reduce failed: Connection closed by peer", "kill -ABRT $$", HostLost),
        ("free(): invalid pointer", "kill -ABRT $$", TrainingError),
        ("", "kill -KILL $$", TrainingError),
        ("training: No recipe", "exit 2", SystemExit),
    ],
)
def test_a_host_ends_as_its_process_did(
    says: str,
    does: str,
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{says}' >&2\n{does}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(error) as raised:
        launcher.train(Hosts("127.0.0.1:1", 2, 0), Namespace(arguments=[], backend=None), print)
    assert type(raised.value) is error
    assert says in capfd.readouterr().err


PUBLISHING = """#!/bin/sh
(trap 'echo ended > {folder}/told; exit 75' TERM
 echo > {folder}/begun
 while :; do sleep 0.05; done) &
while ! test -e {folder}/begun; do sleep 0.01; done
echo 'Gloo all-reduce failed' >&2
kill -ABRT $$
"""


def test_what_the_process_of_a_host_has_started_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(PUBLISHING.format(folder=tmp_path))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(HostLost):
        launcher.train(Hosts("127.0.0.1:1", 2, 0), Namespace(arguments=[], backend=None), print)
    assert (tmp_path / "told").read_text() == "ended\n"


EXPORT = """#!/bin/sh
trap 'echo ended > {folder}/told; exit 75' TERM
echo $$ > {folder}/pid
while :; do sleep 0.05; done
"""


def test_a_signal_lets_the_process_that_publishes_clear_up(
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
    places = {"runs": tmp_path, "models": tmp_path, "data_dir": tmp_path}
    with pytest.raises(Preempted):
        launcher.export(Namespace(seed=1, extra=None, **places), "digits")
    assert (tmp_path / "told").read_text() == "ended\n"


def test_the_process_that_publishes_is_told_of_the_extra_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    places = {"runs": "runs", "models": "models", "data_dir": "data", "extra": "sent back"}
    launcher.export(Namespace(seed=1, **places), "digits")
    assert "--extra=sent back" in (tmp_path / "told").read_text()
