import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.tables import ROOT
from tests.tiny_data import squares, write_idx, write_tiny_data
from training.__main__ import main
from training.data import download
from training.evaluation.published import Version, find
from training.fitting.checkpoints import State


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
        (["evaluate", "digits", "--models", "nowhere"], "Nothing is published in nowhere"),
        (["evaluate", "digits", "--limit", "5"], "--limit is for --corrupted"),
        (["evaluate", "digits", "--full", "--corrupted"], "--full is for files of a version"),
        (["evaluate", "digits", "--full", "--url", "http://a"], "--full is for files"),
        (
            ["evaluate", "digits/1", "--precision", "int8", "--models", str(ROOT / "models")],
            "has no model.int8.onnx. Expected: another --precision",
        ),
        (
            ["evaluate", "digits/9", "--models", "nowhere"],
            "Nothing is published in nowhere",
        ),
        (["evaluate", "digits", "--url", "localhost:8000"], "Expected an address that begins with"),
        (["export", "digits", "--runs", "nowhere"], "No run in nowhere/digits-seed1"),
        (["train", "digits_adadelta", "--extra", "nowhere"], "No folder nowhere. Expected: images"),
        (["export", "digits_adadelta", "--extra", "nowhere"], "No folder nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_reported_and_exits_2(
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


@pytest.mark.parametrize("name", ["foo", "torch"])
def test_an_unsupported_backend_exits_2(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", name)
    assert main(["list"]) == 2
    assert f"KERAS_BACKEND is '{name}'. Expected tensorflow or jax" in capsys.readouterr().err


def test_a_missing_backend_exits_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert main(["list"]) == 2
    assert "jax is not installed. `pip install '.[train-jax]'`" in capsys.readouterr().err
    hosts = ["--hosts", "a:1,b:1", "--host-index", "0", "--runs", str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "jax" or None)
    monkeypatch.delenv("KERAS_BACKEND")
    assert main(["train", "digits_conv5", *hosts]) == 2
    assert "Several hosts need JAX" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fast"], "--fast"),
        (["--epochs", "0"], "expected a positive number, not 0"),
        (["--epochs", "many"], "expected a whole number from 0, not 'many'"),
        (["--seed=-1"], "expected a whole number from 0, not '-1'"),
        (["--seed=4294967296"], "expected at most 4294967295, not 4294967296"),
        (["--host-patience=0"], "expected a positive number, not 0"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_exits_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["train", "digits", *options])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_training_to_publish_is_refused_without_tensorflow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorflow" or None)
    assert main(["train", "digits", "--models", str(tmp_path)]) == 2
    assert "Only TensorFlow can export, and it is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["models", "runs"])
def test_an_unwritable_folder_exits_1_before_the_data_are_read(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / place).write_bytes(b"a file where a folder should be")
    places = [f"--{name}={tmp_path / name}" for name in ("data-dir", "models", "runs")]
    assert main(["train", "digits", *places]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / place} cannot be written" in error or f"Cannot write {tmp_path}" in error
    assert not (tmp_path / "data-dir").exists()


def train(folder: Path, *options: str) -> list[str]:
    """Return the arguments of ``train digits_adadelta`` with all its folders in ``folder``."""
    places = [f"--{name}={folder / name}" for name in ("data-dir", "models", "runs")]
    return ["train", "digits_adadelta", *options, *places]


def test_a_run_below_the_gate_exits_4_and_publishes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mnist = write_tiny_data(tmp_path / "data-dir") / "mnist"
    images, labels = squares(26, side=28, channels=1, seed=9)  # 260: enough to compare an export
    write_idx(mnist / "t10k-images-idx3-ubyte.gz", images[..., 0])
    write_idx(mnist / "t10k-labels-idx1-ubyte.gz", labels)
    assert main(train(tmp_path, "--epochs=1")) == 4
    assert "below its min_accuracy of 98.80%" in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []


def test_a_run_begun_without_extra_images_does_not_continue_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_data(tmp_path / "data-dir")
    seven = tmp_path / "sent back" / "digits" / "7" / "id.png"
    seven.parent.mkdir(parents=True)
    shutil.copy(next((find("digits", ROOT / "models").folder / "golden").glob("7-*.png")), seven)
    arguments = train(tmp_path, "--epochs=1", "--no-publish")
    extra = ["--extra", str(tmp_path / "sent back")]
    assert main(arguments) == 0
    assert main([*arguments, *extra]) == 2
    output = capsys.readouterr()
    assert "Extra images added to train: 1." in output.out
    assert "digits_adadelta-seed1 began with data " in output.err
    other = f"--runs={tmp_path / 'other'}"
    assert main([*arguments, *extra, other]) == 0
    state = json.loads((tmp_path / "other/digits_adadelta-seed1/state.json").read_text())
    assert shlex.join(extra) in state["command"]


def test_unusable_extra_images_are_reported_before_the_data_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sent back" / "seven").mkdir(parents=True)
    assert main([*train(tmp_path), "--extra", str(tmp_path / "sent back")]) == 3
    assert "a folder 'seven', which is not a label of digits. Expected: 0, 1," in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "data-dir").exists()


@pytest.mark.parametrize(("held", "calls"), [(b"of this run", 0), (b"of another", 1)])
def test_a_run_that_was_published_is_not_published_twice(
    held: bytes, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_data(tmp_path / "data-dir")
    file = tmp_path / "models" / "digits" / "4" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(held)
    state = State("digits_adadelta", "", 1, 1, "float32", "", "")
    state.published = hashlib.sha256(b"of this run").hexdigest()
    published: list[object] = []
    monkeypatch.setattr("training.fitting.fit.fit", lambda *_, **__: state)
    monkeypatch.setattr("training.commands.train._publish", lambda *given: published.append(given))
    assert main(train(tmp_path)) == 0
    assert len(published) == calls


@pytest.mark.parametrize("worse", [True, False])
def test_a_version_that_is_less_accurate_than_the_one_before_is_reported(
    worse: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    versions = [find(text, ROOT / "models").folder for text in ("digits/1", "digits")]
    before, after = reversed(versions) if worse else versions
    shutil.copytree(before, tmp_path / "models/digits/1")
    write_tiny_data(tmp_path / "data-dir")
    monkeypatch.setattr(
        "training.fitting.fit.fit", lambda *_, **__: State("", "", 1, 1, "", "", "")
    )
    monkeypatch.setattr(
        "training.publishing.publish.publish",
        lambda *_, **__: shutil.copytree(after, tmp_path / "models/digits/2"),
    )
    assert main(train(tmp_path)) == 0
    note = f"Note: the version before has {Version(before).accuracy:.2%} accuracy, this one 99.16%"
    assert (note in capsys.readouterr().out) is worse


@pytest.mark.parametrize(
    ("place", "code", "message"),
    [
        ("models", 1, "models cannot be written: Permi"),
        ("data-dir", 3, "mnist cannot be read: Permi"),
    ],
)
def test_a_folder_without_permission_is_reported(
    place: str, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path / "closed"
    with TemporaryDirectory() as shared:
        places = {name: f"{shared}/{name}" for name in ("data-dir", "models", "runs")}
        places[place] = f"{closed}/{place}"
        options = [f"--{name}={folder}" for name, folder in places.items()]
        Path(shared).chmod(0o777)
        closed.mkdir(mode=0)
        with nobody():
            assert main(["train", "digits_adadelta", *options]) == code
    assert message in capsys.readouterr().err


@contextmanager
def nobody() -> Iterator[None]:
    """Drop root, who is not stopped by permissions."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_missing_data_without_a_network_exit_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    assert main(train(tmp_path)) == 3
    assert "training: Cannot fetch" in capsys.readouterr().err.splitlines()[-1]


def test_a_signal_ends_the_command_and_the_same_command_resumes(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data-dir")
    options = train(tmp_path, "--epochs=2000", "--no-publish")
    arguments = [sys.executable, "-m", "training", *options]
    state = tmp_path / "runs/digits_adadelta-seed1/state.json"
    reached = []
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        before = state.read_text() if state.exists() else ""
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and (not state.exists() or state.read_text() == before):
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert "The same command resumes" in errors
        assert "0000 00:00" not in errors  # TensorFlow's own lines
        held = json.loads(state.read_text())
        reached.append((held["epoch"], held["step"]))
    assert reached[1] > reached[0] > (0, 0)


def test_the_help_does_not_load_keras() -> None:
    code = (
        "import sys; from training.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "evaluate" in done.stdout
