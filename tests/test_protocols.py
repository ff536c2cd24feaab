"""The commands in docs/protocols.md print what the page shows."""

import contextlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from bench.rig.service import only
from tests.serving.running import Running, running
from tests.tables import ROOT

PAGE = (ROOT / "docs/protocols.md").read_text("utf-8")
CONSOLE = re.findall(r"```console\n\$ (.*?)\n(\{.*?)\n```", PAGE, re.DOTALL)
ADDRESS = "localhost:8000"


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """Serve the versions up to the one that the page names, whatever was published since."""
    named = int(re.findall(r"models/digits/(\d+)", PAGE)[0])
    folders = [each for each in (ROOT / "models/digits").iterdir() if each.name.isdigit()]
    with (
        only([each for each in folders if int(each.name) <= named]) as models,
        running(models, workers=1, log_level="warning") as started,
    ):
        yield started


def rounded(text: str) -> str:
    """Round probabilities, whose last digits depend on the processor, and drop the ids."""
    text = re.sub(r'"ids": ?\["[\w-]{40,}"\]', '"ids": []', text)
    return re.sub(r"\d\.\d{4,}(e-\d+)?", lambda found: f"{float(found[0]):.3f}", text)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(("command", "printed"), CONSOLE, ids=range(len(CONSOLE)))
def test_a_command_gets_the_answer_that_it_prints(
    service: Running, command: str, printed: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", command.replace(ADDRESS, f"127.0.0.1:{service.port}")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(rounded(done.stdout)) == json.loads(rounded(printed))


def test_the_client_prints_the_documented_output(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = re.search(r"```python\n(.*?)```\n\nprints\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    code, printed = shown.groups()
    monkeypatch.chdir(ROOT)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code.replace(ADDRESS, f"127.0.0.1:{service.port}"), {})
    assert rounded(output.getvalue()) == rounded(printed)


def test_there_is_a_command_for_each_protocol() -> None:
    assert {re.search(r"/v\d", command)[0] for command, _ in CONSOLE} == {"/v1", "/v2"}  # type: ignore[index]


def test_the_documented_bound_is_that_of_the_code() -> None:
    from serving.api.tensors import NUMBERS

    assert f"bounded to {NUMBERS:,} numbers" in PAGE
