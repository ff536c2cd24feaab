"""What README.md shows is what the code does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from serving.app import create_app
from serving.settings import Settings
from tests import tables

README = tables.README.read_text("utf-8")


def test_its_tables_are_made_from_the_code_and_the_models() -> None:
    assert tables.written(README) == README, "Run `make docs`."


def same(got: Any, told: Any) -> bool:
    """Equal, but for the last digits of a probability, which depend on the processor, and for what
    is told by its start."""
    if isinstance(told, str) and told.endswith("…"):
        return isinstance(got, str) and got.startswith(told[:-1])
    if isinstance(told, float):
        return bool(got == pytest.approx(told, abs=1e-4))
    if isinstance(told, dict):
        return list(got) == list(told) and all(same(got[key], told[key]) for key in told)
    if isinstance(told, list):
        return len(got) == len(told) and all(map(same, got, told))
    return bool(got == told)


def test_its_first_request_gets_the_answer_that_it_prints() -> None:
    client = create_app(Settings(models=tables.ROOT / "models")).test_client()
    sent = re.search(
        r"curl -s --data-binary @(\S+) -H 'Content-Type: (\S+)' localhost:8000(\S+)", README
    )
    printed = re.search(r"answers .*?\n\n```json\n(.*?)\n```", README, re.DOTALL)
    assert sent
    assert printed
    picture, kind, path = sent.groups()
    answer = client.post(path, data=(tables.ROOT / picture).read_bytes(), content_type=kind)
    expected = json.loads(printed[1])
    assert answer.status_code == 200
    assert same(json.loads(answer.data), expected), answer.data


def test_its_error_is_one_that_the_service_gives() -> None:
    client = create_app(Settings(models=tables.ROOT / "models")).test_client()
    printed = re.search(r'^\{"error".*\}$', README, re.MULTILINE)
    assert printed
    picture = next(Path(tables.ROOT / "models").glob("digits/1/golden/*.png")).read_bytes()
    answer = client.post("/predict/dogs", data=picture, content_type="image/png")
    assert answer.json == json.loads(printed[0])


def test_every_file_that_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)
    assert links
    assert all((tables.ROOT / link).exists() for link in links)


def test_its_commands_are_targets_and_subcommands() -> None:
    targets = re.findall(r"^([a-z-]+):", (tables.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^\$ make ([a-z-]+)", README, re.MULTILINE)) <= set(targets)
    from training.__main__ import _parser

    for words in re.findall(r"^\$ python -m training ([^#\n]+)", README, re.MULTILINE):
        _parser().parse_args(words.split())
