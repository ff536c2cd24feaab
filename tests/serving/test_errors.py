"""The error tree, its table, and the translation of foreign exceptions."""

import re

import pytest
from werkzeug.exceptions import HTTPException, default_exceptions

from serving import errors
from serving.app.hooks import translated
from tests.tables import error_codes, tree


def test_the_drawn_tree_matches_the_classes() -> None:
    drawn = re.findall(r"── (\w+) +(\d{3})", errors.__doc__ or "")
    assert {(name, int(status)) for name, status in drawn} == {
        (error.__name__, error.status) for error in tree(errors.ServingError)
    }


def test_codes_are_class_names_in_snake_case() -> None:
    assert errors.ImageTooLarge.code == "image_too_large"


def test_the_table_has_a_row_for_every_error() -> None:
    for error in tree(errors.ServingError):
        assert f"| {error.status} | `{error.code}` |" in error_codes()


@pytest.mark.parametrize("foreign", default_exceptions.values(), ids=lambda each: each.__name__)
def test_no_error_of_the_router_is_unmapped(foreign: type[HTTPException]) -> None:
    error = translated(foreign(), method="GET", path="/")
    assert isinstance(error, errors.ServingError) is (400 <= (foreign.code or 500) < 500)
