"""Requests with sound images in odd bodies: forms, and the JSON of each protocol.

Reproducible by seed. Knows the shapes of the bodies; knows nothing of servers.
"""

import base64
import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from bench.clients import bodies
from bench.clients.traffic import JSON, Call
from bench.robustness.mutations import edit, flip

HEAD = 200  # bytes at the beginning of a form, where its first part is described
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf")),
    *("", "a", "\ud800", "\x00", "=" * 5, "x" * 10_000, "data:,", {}, [], [[]], [[[]]], {"": {}}),
)


def call(seed: int, index: int, name: str) -> Call:
    """Return the request number ``index`` of a seed, for a model."""
    rng = random.Random(f"{seed} {index} {name}")
    return rng.choice((_form, _ours, _v2, _v1))(rng, name, bodies.files(name)[0])


def _form(rng: random.Random, name: str, good: bytes) -> Call:
    whole = bodies.form([good] * rng.randint(1, 3))
    head, rest = whole[:HEAD], whole[HEAD:]
    for _ in range(rng.randint(1, 3)):
        head = rng.choice((flip, edit))(rng, head) or head
    return Call(f"/predict/{name}", head + rest, bodies.FORM)


def _ours(rng: random.Random, name: str, good: bytes) -> Call:
    return _json(rng, f"/predict/{name}", {"images": [_text(good)] * rng.randint(1, 3)})


def _v2(rng: random.Random, name: str, good: bytes) -> Call:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [_text(good)]}
    more = {"classification": 2, "binary_data": False}
    outputs = [{"name": "probabilities", "parameters": more}]
    parameters = {"binary_data_output": False, "timeout": 10**7}
    whole = {"id": "1", "parameters": parameters, "inputs": [tensor], "outputs": outputs}
    return _json(rng, f"/v2/models/{name}/infer", whole)


def _v1(rng: random.Random, name: str, good: bytes) -> Call:
    instances = [{"b64": _text(good)}] * rng.randint(1, 3)
    whole = {"signature_name": "serving_default", "instances": instances}
    return _json(rng, f"/v1/models/{name}:predict", whole)


def _json(rng: random.Random, path: str, whole: dict[str, Any]) -> Call:
    whole = json.loads(json.dumps(whole))  # no part is shared
    for _ in range(rng.randint(1, 2)):
        # Keep the timeout: a request with a microsecond is answered 504, correctly.
        places = [each for each in _places(whole) if each[1] != "timeout"]
        holder, key = rng.choice(places or [(whole, "images")])
        holder[key] = copy.deepcopy(rng.choice(VALUES))  # a value must not contain itself
    return Call(path, json.dumps(whole).encode(), JSON)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the holder and the key of each part of a JSON value."""
    if not isinstance(value, (dict, list)):
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        yield from _places(value[key])


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
