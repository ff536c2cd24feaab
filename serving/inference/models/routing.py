"""Which version answers a request that names none, and what a label means: ``routing.json``.

Knows the file's format (``models/README.md``) and how a request falls into a share; knows nothing
of models, of folders or of HTTP.
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
    """A version, and the share of the requests that name none which it gets."""

    version: int
    share: float

    def holds(self, request_id: str, purpose: str) -> bool:
        """Whether a request falls into the share: by its id alone, so that it does again when it
        comes again, to whichever worker of whichever replica."""
        digest = blake2b(f"{purpose} {request_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self.share * 2**64


@dataclass(frozen=True)
class Rule:
    """What the file says of one model."""

    default: int | None = None  # the highest
    labels: Mapping[str, int] = field(default_factory=dict)
    canary: Part | None = None
    shadow: Part | None = None

    @property
    def versions(self) -> set[int]:
        """Every version that it names."""
        parts = (part.version for part in (self.canary, self.shadow) if part is not None)
        default = () if self.default is None else (self.default,)
        return {*self.labels.values(), *default, *parts}


Routing = Mapping[str, Rule]  # by model

NO_RULE = Rule()


def parse(data: bytes) -> Routing:
    """The rules of a file.

    Raises:
        ModelError: it is malformed; the message says where.
    """
    try:
        found = json.loads(data, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{FILE} is not JSON: {exc}.") from exc
    return {name: _rule(name, told) for name, told in _object(f"{FILE} is", found).items()}


def check(routing: Routing, known: Mapping[str, Collection[int]]) -> None:
    """Compare a routing with the versions that are loaded, by model.

    Raises:
        ModelError: it names another.
    """
    for name, rule in routing.items():
        if name not in known:
            models = ", ".join(sorted(known))
            raise ModelError(f"{FILE} names the model {name!r}. Loaded models: {models}.")
        if missing := sorted(rule.versions.difference(known[name])):
            versions = ", ".join(map(str, sorted(known[name])))
            raise ModelError(
                f"{FILE} names version {missing[0]} of {name!r}. Loaded versions: {versions}."
            )


def _rule(name: str, told: object) -> Rule:
    where = f"{FILE}, model {name!r}"
    given = _object(f"{where}, is", told)
    if unknown := sorted(given.keys() - set(_KEYS)):
        raise ModelError(f"{where}: no key {unknown[0]!r}. Known keys: {', '.join(_KEYS)}.")
    labels = {
        label: _number(f"{where}: the label {label!r} is", version)
        for label, version in _object(f"{where}: 'labels' is", given.get("labels", {})).items()
    }
    for label in labels:
        if not LABEL.fullmatch(label):
            raise ModelError(
                f"{where}: the label is {label!r}. Expected a lower-case letter, then lower-case"
                " letters, digits, '-' and '_'."
            )
    default, canary, shadow = (given.get(key) for key in ("default", "canary", "shadow"))
    if "shadow" in given and not isinstance(shadow, dict):
        shadow = {"version": shadow, "share": 1}
    return Rule(
        None if "default" not in given else _version(f"{where}: 'default' is", default, labels),
        labels,
        None if "canary" not in given else _part(f"{where}: 'canary'", canary, labels),
        None if "shadow" not in given else _part(f"{where}: 'shadow'", shadow, labels),
    )


def _part(where: str, told: object, labels: Mapping[str, int]) -> Part:
    given = _object(f"{where} is", told)
    if given.keys() != {"version", "share"}:
        raise ModelError(f"{where} has the keys {sorted(given)}. Expected 'version' and 'share'.")
    share = given["share"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ModelError(f"{where} has the share {share!r}. Expected a number from 0 to 1.")
    return Part(_version(f"{where} has the version", given["version"], labels), float(share))


def _version(where: str, told: object, labels: Mapping[str, int]) -> int:
    if isinstance(told, str):
        if told not in labels:
            known = ", ".join(sorted(labels)) or "none"
            raise ModelError(f"{where} {told!r}. Known labels: {known}.")
        return labels[told]
    return _number(where, told)


def _number(where: str, told: object) -> int:
    if isinstance(told, bool) or not isinstance(told, int) or told < 1:
        raise ModelError(f"{where} {told!r}. Expected a version, a positive integer.")
    return told


def _object(where: str, told: object) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise ModelError(f"{where} {told!r}. Expected an object.")
    return told


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found
