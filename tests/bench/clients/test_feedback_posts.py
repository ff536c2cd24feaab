import json
import random

import pytest

from bench.clients import feedback_posts
from bench.clients.feedback_posts import Post, PostOutcome
from bench.clients.labels import Predicted

LABELS = [*"0123456789"]


def predicted(count: int) -> list[Predicted]:
    return [Predicted(f"id {place}", "7", "7") for place in range(count)]


def test_a_known_share_of_the_labels_is_wrong() -> None:
    made = feedback_posts.make_posts(predicted(200), LABELS, wrong=0.1, rng=random.Random(1))
    assert [each.id for each in made] == [f"id {place}" for place in range(200)]
    assert sum(not each.correct for each in made) == 20
    assert all(each.correct is (each.label == "7") for each in made)


def test_some_labels_are_posted_twice_and_all_at_least_once() -> None:
    once = feedback_posts.make_posts(predicted(70), LABELS, wrong=0, rng=random.Random(1))
    all_of_them = feedback_posts.repeated(once, 30, random.Random(1))
    assert len(all_of_them) == 100
    assert {each.id for each in all_of_them} == {each.id for each in once}
    assert max(all_of_them.count(each) for each in once) == 2


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"status": "recorded", "correct": True}, "recorded true"),
        (200, {"status": "duplicate", "correct": False}, "duplicate false"),
        (409, {"error": {"code": "conflicting_feedback"}}, "conflicting_feedback"),
    ],
)
def test_the_answer_to_a_label_is_summarised(
    status: int, body: dict[str, object], expected: str
) -> None:
    assert feedback_posts.summary(status, json.dumps(body).encode()) == expected


@pytest.mark.parametrize(
    ("status", "answer", "kept"),
    [
        (200, "recorded true", True),
        (200, "duplicate true", True),
        (200, "recorded false", False),
        (409, "conflicting_feedback", False),
        (0, "reset", False),
    ],
)
def test_a_post_must_be_accepted_and_judged_correctly(status: int, answer: str, kept: bool) -> None:
    assert PostOutcome(Post("x", "7", correct=True), 0.1, status, answer).kept is kept
