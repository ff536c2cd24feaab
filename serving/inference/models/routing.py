"""Which version answers a request that names none, and what a label means: ``routing.json``.

The format of the file is in ``models/README.md``. Knows nothing of models, of folders or of HTTP.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from serving.errors import ModelError

FILE = "routing.json"
LABEL = re.compile(r"[a-z][a-z0-9_-]{0,63}")

_KEYS = ("canary", "default", "labels", "shadow")


@dataclass(frozen=True)
class Part:
    """A version, and its share of the requests that name no version."""

    version: int
    share: float

    def holds(self, request_id: str, purpose: str) -> bool:
        """Return True if a request falls into the share, by the hash of its id, so that every
        worker of every replica decides alike."""
        digest = blake2b(f"{purpose} {request_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self.share * 2**64


@dataclass(frozen=True)
class Rule:
    """The routing of one model."""

    default: int | None = None  # the highest
    labels: Mapping[str, int] = field(default_factory=dict)
    canary: Part | None = None
    shadow: Part | None = None

    @property
    def versions(self) -> set[int]:
        """Every version that the rule names."""
        parts = {part.version for part in (self.canary, self.shadow) if part is not None}
        return {*self.labels.values(), *parts} | ({self.default} if self.default else set())


Routing = Mapping[str, Rule]  # by model

NO_RULE = Rule()


def parse(data: bytes) -> Routing:
    """Return the rules of a file; raise ModelError, which says where, if it is malformed."""
    try:
        content = json.loads(data, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{FILE} is not JSON: {exc}.") from exc
    return {name: _rule(name, rule) for name, rule in _object(f"{FILE} is", content).items()}


def check(routing: Routing, loaded: Mapping[str, Collection[int]]) -> None:
    """Raise ModelError if a routing names a model or a version that is not loaded."""
    for name, rule in routing.items():
        if name not in loaded:
            models = ", ".join(sorted(loaded))
            raise ModelError(f"{FILE} names the model {name!r}. Loaded models: {models}.")
        if missing := sorted(rule.versions.difference(loaded[name])):
            versions = ", ".join(map(str, sorted(loaded[name])))
            raise ModelError(
                f"{FILE} names version {missing[0]} of {name!r}. Loaded versions: {versions}."
            )


def _rule(name: str, content: object) -> Rule:
    where = f"{FILE}, model {name!r}"
    given = _object(f"{where}, is", content)
    if unknown := sorted(given.keys() - set(_KEYS)):
        raise ModelError(f"{where}: no key {unknown[0]!r}. Known keys: {', '.join(_KEYS)}.")
    labels = _object(f"{where}: 'labels' is", given.get("labels", {}))
    for label, version in labels.items():
        _number(f"{where}: the label {label!r} is", version)
        if not LABEL.fullmatch(label):
            raise ModelError(
                f"{where}: the label is {label!r}. Expected a lower-case letter, then lower-case"
                " letters, digits, '-' and '_'."
            )
    rule: dict[str, Any] = {"labels": labels}
    if "default" in given:
        rule["default"] = _version(f"{where}: 'default' is", given["default"], labels)
    if "canary" in given:
        rule["canary"] = _part(f"{where}: 'canary'", given["canary"], labels)
    if "shadow" in given:
        shadow = given["shadow"]
        if not isinstance(shadow, dict):
            shadow = {"version": shadow, "share": 1}
        rule["shadow"] = _part(f"{where}: 'shadow'", shadow, labels)
    return Rule(**rule)


def _part(where: str, content: object, labels: Mapping[str, int]) -> Part:
    given = _object(f"{where} is", content)
    if given.keys() != {"version", "share"}:
        raise ModelError(f"{where} has the keys {sorted(given)}. Expected 'version' and 'share'.")
    share = given["share"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ModelError(f"{where} has the share {share!r}. Expected a number from 0 to 1.")
    return Part(_version(f"{where} has the version", given["version"], labels), float(share))


def _version(where: str, value: object, labels: Mapping[str, int]) -> int:
    if not isinstance(value, str):
        return _number(where, value)
    if value not in labels:
        raise ModelError(f"{where} {value!r}. Known labels: {', '.join(sorted(labels)) or 'none'}.")
    return labels[value]


def _number(where: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"{where} {value!r}. Expected a version, a positive integer.")
    return value


def _object(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"{where} {value!r}. Expected an object.")
    return value


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found
