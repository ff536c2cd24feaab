from pathlib import Path

import pytest

from bench.reporting import promises
from bench.reporting.figures import between

SECTIONS = {
    promises.PAGE: (
        *("decision", "serving", "int8", "shipped", "precision"),
        *("footprint", "overload", "kills", "hostile", "soak"),
    ),
    promises.ACCURACY: ("feedback", "drift", "ids"),
}


@pytest.mark.parametrize("page", SECTIONS, ids=lambda page: page.stem)
def test_every_command_has_its_place_on_its_page(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in SECTIONS[page]:
        between(text, name, "")


def test_a_broken_promise_ends_with_1(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- it -->\n\n<!-- end of it -->\n")
    good = promises.Promise("memory", "≤ 2 MB", "1 MB")
    bad = promises.none_of("5xx", 1)
    assert promises.report([good], page=page, name="it", above="") == 0
    assert promises.report([good, bad], page=page, name="it", above="") == 1
    assert "| 5xx | 0 | 1 | **no** |" in page.read_text()


def test_an_option_has_the_type_of_its_default() -> None:
    options = {"seconds": (1.0, "length"), "few": ([1, 2], "numbers"), "to": (Path("a"), "folder")}
    parser = promises.parser("some.module", "", None, **options, kinds=(("a", "b"), "kinds"))
    found = parser.parse_args(["--seconds=2", "--few", "3", "--to", "b", "--kinds", "b"])
    assert vars(found) == {"seconds": 2.0, "few": [3], "to": Path("b"), "kinds": ["b"]}
    for wrong in (["--seconds=x"], ["--few", "1.5"], ["--kinds", "c"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
