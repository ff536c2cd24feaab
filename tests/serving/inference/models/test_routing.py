"""Reading ``routing.json``, and which requests fall into a share."""

import json
from typing import Any

import pytest

from serving.errors import ModelError
from serving.inference.models.routing import Part, Rule, check, parse

FULL = {
    "shade": {
        "default": "stable",
        "labels": {"stable": 1, "next": 2},
        "canary": {"version": "next", "share": 0.1},
        "shadow": 3,
    },
    "tint": {},
}


def file(rule: Any) -> bytes:
    return json.dumps({"shade": rule}).encode()


def test_a_version_is_a_number_or_a_label() -> None:
    assert parse(json.dumps(FULL).encode()) == {
        "shade": Rule(
            default=1,
            labels={"stable": 1, "next": 2},
            canary=Part(2, 0.1),
            shadow=Part(3, 1.0),
        ),
        "tint": Rule(),
    }


def test_a_shadow_may_have_a_share() -> None:
    rule = parse(file({"shadow": {"version": 2, "share": 0.5}}))["shade"]
    assert rule.shadow == Part(2, 0.5)
    rule = parse(file({"canary": {"version": 2, "share": 0}}))["shade"]
    assert rule.canary == Part(2, 0.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "routing.json is not JSON"),
        (b'{"shade": {', "routing.json is not JSON"),
        (b"\xff\xff", "routing.json is not JSON"),
        (b"[" * 100_000, "routing.json is not JSON"),
        (b"[]", "routing.json is []. Expected an object."),
        (b'{"shade": {}, "shade": {}}', "'shade' is there twice"),
        (file(1), "routing.json, model 'shade', is 1. Expected an object."),
        (file({"cannary": {}}), "no key 'cannary'. Known keys: canary, default, labels, shadow."),
        (file({"default": 0}), "'default' is 0. Expected a version, a positive integer."),
        (file({"default": True}), "'default' is True. Expected a version"),
        (file({"default": None}), "'default' is None. Expected a version"),
        (file({"default": "stable"}), "'default' is 'stable'. Known labels: none."),
        (file({"labels": {"stable": "1"}}), "the label 'stable' is '1'. Expected a version"),
        (file({"labels": {"1": 1}}), "the label is '1'. Expected a lower-case letter"),
        (file({"labels": [1]}), "'labels' is [1]. Expected an object."),
        (file({"canary": 2}), "'canary' is 2. Expected an object."),
        (file({"canary": {"version": 2}}), "the keys ['version']. Expected 'version' and 'share'."),
        (file({"canary": {"version": 2, "share": 1.5}}), "the share 1.5. Expected a number from 0"),
        (file({"canary": {"version": 2, "share": float("nan")}}), "the share nan."),
        (file({"canary": {"version": 2, "share": True}}), "'canary' has the share True."),
        (
            file({"shadow": {"version": "x", "share": 1}}),
            "routing.json, model 'shade': 'shadow' has the version 'x'. Known labels: none.",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(data: bytes, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(default=4), "routing.json names version 4 of 'shade'. Loaded versions: 1, 2."),
        (Rule(labels={"stable": 3}), "names version 3 of 'shade'"),
        (Rule(canary=Part(3, 0)), "names version 3 of 'shade'"),
        (Rule(shadow=Part(3, 1)), "names version 3 of 'shade'"),
    ],
)
def test_a_version_that_is_not_loaded_is_refused(rule: Rule, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check({"shade": rule}, {"shade": {1, 2}})


def test_a_model_that_is_not_loaded_is_refused() -> None:
    with pytest.raises(ModelError, match="the model 'dogs'. Loaded models: shade, tint."):
        check({"dogs": Rule()}, {"tint": {1}, "shade": {1}})


def test_a_share_holds_about_that_many_requests_and_always_the_same() -> None:
    ids = [f"request-{i}" for i in range(10_000)]
    tenth = {each for each in ids if Part(2, 0.1).holds(each, "canary")}
    assert 900 < len(tenth) < 1100
    assert tenth == {each for each in ids if Part(3, 0.1).holds(each, "canary")}


def test_a_growing_share_keeps_its_requests() -> None:
    ids = [f"{i:x}" for i in range(2000)]
    tenth = {each for each in ids if Part(2, 0.1).holds(each, "canary")}
    half = {each for each in ids if Part(2, 0.5).holds(each, "canary")}
    assert tenth < half
    assert not any(Part(2, 0).holds(each, "canary") for each in ids)
    assert all(Part(2, 1).holds(each, "canary") for each in ids)


def test_the_shares_of_canary_and_shadow_are_independent() -> None:
    ids = [f"{i:x}" for i in range(2000)]
    both = [each for each in ids if all(Part(2, 0.5).holds(each, p) for p in ("canary", "shadow"))]
    assert 400 < len(both) < 600
