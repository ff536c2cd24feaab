"""docs/architecture.md names folders and modules that exist, and all folders of both halves."""

import re

from tests.tables import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")


def test_every_named_module_exists() -> None:
    named = set(re.findall(r"\b(?:serving|training|tests|models|bench)/[\w./]+\w", PAGE))
    modules = {each for each in named if each.endswith(".py")}
    assert len(modules) > 30
    assert [each for each in sorted(modules) if not (ROOT / each).is_file()] == []


def test_modules_named_by_their_file_alone_stand_beside_the_others() -> None:
    nodes = re.findall(r'"((?:serving|training)/[\w/]+)/\w+\.py<br>([^"]*)"', PAGE)
    assert nodes
    for folder, text in nodes:
        for file in re.findall(r"\b\w+\.py\b", text):
            assert (ROOT / folder / file).is_file(), f"{folder}/{file}"


def test_every_folder_is_explained() -> None:
    for half in ("serving", "training"):
        folders = {each.parent.relative_to(ROOT) for each in (ROOT / half).glob("*/**/__init__.py")}
        for folder in folders:
            shown = f"`{folder}/`" in PAGE or re.search(rf'\["{folder.name}: ', PAGE)
            assert shown, folder
