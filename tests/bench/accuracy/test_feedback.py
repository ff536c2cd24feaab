"""Labels in the database and counters in Prometheus are held against what was sent."""

from collections.abc import Sequence

import pytest

from bench.accuracy import audit, feedback
from bench.clients.feedback_posts import Post, PostOutcome
from bench.clients.traffic import Call, Outcome

RIGHT = Post("x", "7", correct=True)


def row(key: str, at: float, *, replica: str = "a", label: str = "7") -> audit.Row:
    return audit.Row(key, label, label == "7", replica, at)


def test_a_label_that_is_missing_changed_or_never_sent_differs() -> None:
    sent = {"x": "7", "y": "7", "z": "1"}
    assert audit.differing([row("x", 1), row("y", 2), row("z", 3, label="1")], sent) == 0
    assert audit.differing([row("x", 1), row("y", 2, label="1"), row("w", 3)], sent) == 3


ROWS = [row("x", 1.5), row("y", 3.5), row("z", 4.5, label="1")]


def scraped(*right: float, wrong: float = 1) -> audit.Scraped:
    """Return scrapes at 1, 2, 3 … that took 0.6 s, and one of the wrong labels at 5."""
    samples = [(float(at), value) for at, value in enumerate(right, start=1)]
    took = {("a", float(at)): 0.6 for at in range(1, 10)}
    return audit.Scraped({("a", "true"): samples, ("a", "false"): [(5.0, wrong)]}, took)


@pytest.mark.parametrize(
    ("seen", "ahead", "off"),
    [
        pytest.param(scraped(1, 1, 2, 2, 2), 0, 0, id="follow the rows"),
        pytest.param(scraped(1, 1, 2, 0, 2), 0, 1, id="from zero after a restart"),
        pytest.param(scraped(1, 2, 2, 2, 2), 1, 0, id="before the row"),
        pytest.param(scraped(1, 1, 2, 2, 3), 1, 1, id="a label twice"),
        pytest.param(scraped(1, 1, 2, 2, 2, wrong=0), 0, 1, id="a label lost"),
    ],
)
def test_counters_that_do_not_follow_the_rows_are_found(
    seen: audit.Scraped, ahead: int, off: int
) -> None:
    assert seen.samples == 6
    assert (seen.ahead(ROWS), seen.off(ROWS, since=4.0)) == (ahead, off)


def outcome(status: int, code: str = "recorded true") -> Outcome:
    return Outcome(Call("/feedback"), 0.0, 0.1, status, code, 1)


def sent(*tries: Outcome, answer: str = "recorded true") -> feedback.Sent:
    posts = [PostOutcome(RIGHT, 0.1, 200, answer)]
    return feedback.Sent(posts, {"a": tries}, {"a": []}, 1.0)


def found(right: float = 2, total: float = 3, rows: Sequence[audit.Row] = ROWS) -> feedback.Found:
    seen = scraped(1, 1, 2, 2, 2)
    return feedback.Found(rows, seen, "", right, total, right / total, 4.0)


def test_an_idle_connection_may_break_too() -> None:
    call = Call("/feedback")
    tries = [Outcome(call, 1.0, 0.5, 200, "", 1), Outcome(call, 4.0, 0.1, 0, "reset", 1)]
    first, second = feedback.with_idle_time(tries)
    assert (first.began, second.began, second.began + second.seconds) == (1.0, 1.5, 4.1)


POSTS = [Post("x", "7", correct=True), Post("y", "7", correct=True), Post("z", "1", correct=False)]
EXPECTED = {each.id: each.label for each in POSTS}


def kept(seen: feedback.Sent, then: feedback.Found) -> bool:
    return all(each.kept for each in feedback.judge(POSTS, seen, then, EXPECTED))


def test_labels_that_all_arrived_keep_the_promises() -> None:
    assert kept(sent(outcome(200)), found())
    assert kept(sent(outcome(503, "feedback_unavailable"), outcome(200)), found())


@pytest.mark.parametrize(
    ("seen", "then"),
    [
        pytest.param(sent(outcome(200)), found(right=1), id="one right label less"),
        pytest.param(sent(outcome(200)), found(total=4), id="one label too many"),
        pytest.param(sent(outcome(200)), found(rows=[*ROWS, ROWS[0]]), id="a row twice"),
        pytest.param(sent(outcome(0), outcome(200)), found(), id="broke without a kill"),
        pytest.param(sent(outcome(500), outcome(200)), found(), id="500"),
        pytest.param(sent(outcome(200), answer="recorded false"), found(), id="judged wrongly"),
    ],
)
def test_a_label_that_did_not_arrive_breaks_a_promise(
    seen: feedback.Sent, then: feedback.Found
) -> None:
    assert not kept(seen, then)
