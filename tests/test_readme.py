"""README.md and the reference pages show what the code does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from serving.app import create_app
from serving.app.openapi.document import document
from serving.settings import Settings
from tests import tables
from tests.tables import ROOT

README = tables.README.read_text("utf-8")
REFERENCE = ROOT / "docs/reference"
DOCS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *(ROOT / "models/README.md", ROOT / "bench/README.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]
API = (REFERENCE / "api.md").read_text("utf-8")
COMMANDS = (REFERENCE / "commands.md").read_text("utf-8")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(Settings(models=ROOT / "models")).test_client()


@pytest.mark.parametrize("page", tables.PAGES, ids=name)
def test_generated_tables_match_the_code_and_the_models(page: Path) -> None:
    assert tables.written(page) == page.read_text("utf-8"), "Run `make docs`."


def test_the_readme_fits_on_one_screen_and_a_half() -> None:
    assert len(README.splitlines()) <= 95


def same(got: Any, expected: Any) -> bool:
    """Return True if both are equal, except for the last digits of a probability, which depend on
    the processor, and for a text that ends with ``…``, of which only the start counts."""
    if isinstance(expected, str) and expected.endswith("…"):
        return isinstance(got, str) and got.startswith(expected[:-1])
    if isinstance(expected, float):
        return bool(got == pytest.approx(expected, abs=1e-4))
    if isinstance(expected, dict):
        return list(got) == list(expected) and all(same(got[key], expected[key]) for key in got)
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    return bool(got == expected)


def test_the_first_request_gets_the_printed_answer(client: FlaskClient) -> None:
    sent = re.search(
        r"curl -s --data-binary @(\S+) -H 'Content-Type: (\S+)' localhost:8000(\S+)", README
    )
    printed = re.search(r"answers .*?\n\n```json\n(.*?)\n```", README, re.DOTALL)
    assert sent
    assert printed
    picture, kind, path = sent.groups()
    assert picture == tables.picture(), "Run `make docs`."
    answer = client.post(path, data=(ROOT / picture).read_bytes(), content_type=kind)
    assert answer.status_code == 200
    assert same(json.loads(answer.data), json.loads(printed[1])), answer.data


def test_the_printed_error_is_one_of_the_service(client: FlaskClient) -> None:
    page = (REFERENCE / "errors.md").read_text("utf-8")
    printed = re.search(r'^\{"error".*\}$', page, re.MULTILINE)
    assert printed
    image = (ROOT / tables.picture()).read_bytes()
    answer = client.post("/predict/dogs", data=image, content_type="image/png")
    assert answer.json == json.loads(printed[0])


def test_the_routes_are_those_of_the_openapi_document() -> None:
    section = API.partition("## Routes")[2].partition("##")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = set(re.findall(r"`(\w+ /\S*?)`", " ".join(cells)))
    described = {
        f"{method.upper()} {path}".replace("{name}", "<model>")
        for path, methods in document(Settings())["paths"].items()
        for method in methods
    }
    own = {route for route in described if not re.search(r" /v[12]", route)}
    assert {route for route in listed if "/v1" not in route} == own
    assert {route for route in listed if "/v1" in route} <= described


def test_every_parameter_of_a_prediction_is_explained() -> None:
    operation = document(Settings())["paths"]["/predict"]["post"]
    names = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
    explained = set(re.findall(r"^\| `(\w+)=", API, re.MULTILINE))
    assert explained == names


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", each.lower()) for each in headings]
    return {each.replace(" ", "-") for each in plain}


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8"))
    for target, anchor in links:
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_the_readme_links_to_every_page() -> None:
    linked = {
        (ROOT / link).resolve() for link in re.findall(r"\]\(((?!https?:)[^)#]+\.md)\)", README)
    }
    pages = {page.resolve() for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= linked


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_commands_are_targets_and_subcommands(page: Path) -> None:
    from serving.__main__ import _parser as serving
    from training.commands.options import parser as training

    text = page.read_text("utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^\$ make ([a-z-]+)", text, re.MULTILINE)) <= set(targets)
    for half, parser in (("training", training), ("serving", serving)):
        for words in re.findall(rf"^\$ python -m {half} ([^#\n]+)", text, re.MULTILINE):
            parser().parse_args(words.split())
