"""A request whose header is there, and what its header says.

Knows the parameters of our own routes; knows no model and no server.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import orjson

from serving.errors import BadRequest
from serving.inference.models.model import Model
from serving.inference.models.routing import LABEL

PARAMETERS = frozenset({"coverage", "model", "top", "version"})
TOP = 5
JSON = "application/json"

ReadBody = Callable[[float], Awaitable[bytes]]  # until a ``time.monotonic()``


@dataclass(frozen=True)
class Call:
    """A request whose header is there, whatever server took it."""

    names: Mapping[str, str]  # that the path holds: of the model, of its version
    query: str
    header: Callable[[str], str | None]  # by its name in lower case
    read: ReadBody
    used: Callable[[Model], None]  # told the model as soon as it is known
    request_id: str
    began: float  # a ``time.monotonic()``

    def deadline(self, longest_ms: int) -> float:
        """Until when it must be answered, a ``time.monotonic()``; a client may only shorten it.

        Raises:
            BadRequest: its header is no number.
        """
        asked = self.header("x-request-timeout-ms")
        if asked is not None:
            longest_ms = min(longest_ms, positive("The header X-Request-Timeout-Ms", asked))
        return self.began + longest_ms / 1000


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameters:
    """What the query of a prediction asks for."""

    model: str | None
    version: int | str | None  # a number or a label
    top: int
    coverage: float | None


@lru_cache(maxsize=256)  # clients ask for the same again and again
def parameters(query: str) -> Parameters:
    """The parameters of a query.

    Raises:
        BadRequest: one is unknown or malformed.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    # A misspelt ?version= that is ignored would answer with another version.
    if unknown := sorted(given.keys() - PARAMETERS):
        known = ", ".join(sorted(PARAMETERS))
        raise BadRequest(f"No parameter named {unknown[0]!r}. Known parameters: {known}.")
    if len(given) < len(pairs):
        raise BadRequest("A parameter is given more than once.")
    top = _number("top", given) or TOP
    return Parameters(given.get("model"), _version(given), top, _coverage(given))


def _number(name: str, given: Mapping[str, str]) -> int | None:
    text = given.get(name)
    return None if text is None else positive(f"The parameter {name!r}", text)


def _version(given: Mapping[str, str]) -> int | str | None:
    text = given.get("version")
    if text is None or (text.isascii() and text.isdigit()):
        return _number("version", given)
    if not LABEL.fullmatch(text):
        raise BadRequest(
            f"The parameter 'version' is {text[:40]!r}. Expected a positive integer or a label."
        )
    return text


def positive(what: str, text: str) -> int:
    """The number that a text says.

    Raises:
        BadRequest: it says none above 0.
    """
    if not counts(text):
        raise BadRequest(f"{what} is {text[:40]!r}. Expected a positive integer.")
    return int(text)


def counts(text: str) -> bool:
    """Whether it is a number above 0."""
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0


def _coverage(given: Mapping[str, str]) -> float | None:
    text = given.get("coverage")
    if text is None:
        return None
    if not re.fullmatch(r"0?\.[0-9]{1,9}", text, re.ASCII):
        raise BadRequest(f"The parameter 'coverage' is {text[:40]!r}. Expected a share, like 0.95.")
    return float(text)


def encoded(body: Mapping[str, Any]) -> bytes:
    """An answer of ours, with a line end for people at a terminal."""
    return orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
