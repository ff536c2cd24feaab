"""The parts of the benchmarks of live accuracy that could be wrong in silence."""

import json
import os
import random
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest

from bench.accuracy import audit, days, drift, feedback, ids, panels, timeline
from bench.accuracy.timeline import Alert, Episode, Look
from bench.clients import feedback_posts
from bench.clients.feedback_posts import Post, Posted
from bench.clients.labels import Predicted, published
from bench.clients.traffic import Call, Outcome
from bench.rig.environment import program
from bench.rig.nginx import balanced
from bench.rig.postgres import asked, postgres
from bench.rig.prometheus import hastened, prometheus
from bench.rig.service import convserve, newest, only
from tests.serving.waiting import until

LABELS = [*"0123456789"]


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if program(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


# What is sent.


def predicted(count: int) -> list[Predicted]:
    return [Predicted(f"id {place}", "7", "7") for place in range(count)]


def test_a_known_share_of_the_labels_is_wrong() -> None:
    made = feedback_posts.labelled(predicted(200), LABELS, wrong=0.1, rng=random.Random(1))
    assert [each.id for each in made] == [f"id {place}" for place in range(200)]
    assert sum(not each.correct for each in made) == 20
    assert all(each.correct is (each.label == "7") for each in made)


def test_some_are_posted_twice_and_all_at_least_once() -> None:
    once = feedback_posts.labelled(predicted(70), LABELS, wrong=0, rng=random.Random(1))
    all_of_them = feedback_posts.repeated(once, 30, random.Random(1))
    assert len(all_of_them) == 100
    assert {each.id for each in all_of_them} == {each.id for each in once}
    assert max(all_of_them.count(each) for each in once) == 2


@pytest.mark.parametrize(
    ("status", "body", "noted"),
    [
        (200, {"status": "recorded", "correct": True}, "recorded true"),
        (200, {"status": "duplicate", "correct": False}, "duplicate false"),
        (409, {"error": {"code": "conflicting_feedback"}}, "conflicting_feedback"),
    ],
)
def test_what_is_answered_to_a_label_is_noted(
    status: int, body: dict[str, object], noted: str
) -> None:
    assert feedback_posts.said(status, json.dumps(body).encode()) == noted


RIGHT = Post("x", "7", correct=True)


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
def test_a_post_is_taken_and_judged_rightly_or_the_promise_is_broken(
    status: int, answer: str, kept: bool
) -> None:
    assert Posted(RIGHT, 0.1, 1, status, answer).kept is kept


# What is found.


def row(key: str, at: float, *, replica: str = "a", label: str = "7") -> audit.Row:
    return audit.Row(key, label, label == "7", replica, at)


def test_a_label_that_is_lost_changed_or_strange_differs() -> None:
    sent = {"x": "7", "y": "7", "z": "1"}
    assert audit.differing([row("x", 1), row("y", 2), row("z", 3, label="1")], sent) == 0
    assert audit.differing([row("x", 1), row("y", 2, label="1"), row("w", 3)], sent) == 3


ROWS = [row("x", 1.5), row("y", 3.5), row("z", 4.5, label="1")]


def seen(*right: float, wrong: float = 1) -> audit.Seen:
    """Scrapes at 1, 2, 3 … that took 0.6 s, and one of the wrong labels at 5."""
    samples = [(float(at), value) for at, value in enumerate(right, start=1)]
    took = {("a", float(at)): 0.6 for at in range(1, 10)}
    return audit.Seen({("a", "true"): samples, ("a", "false"): [(5.0, wrong)]}, took)


def fell_in(told: audit.Seen) -> int:
    return sum(map(audit.falls, told.counters.values()))


def test_counters_that_follow_the_rows_keep_their_promises() -> None:
    told = seen(1, 1, 2, 2, 2)
    assert (told.samples, fell_in(told), told.ahead(ROWS), told.off(ROWS, since=4.0)) == (
        6,
        0,
        0,
        0,
    )


@pytest.mark.parametrize(
    ("told", "fell", "ahead", "off"),
    [
        pytest.param(seen(1, 1, 2, 0, 2), 1, 0, 1, id="from zero after a restart"),
        pytest.param(seen(1, 2, 2, 2, 2), 0, 1, 0, id="before the row"),
        pytest.param(seen(1, 1, 2, 2, 3), 0, 1, 1, id="a label twice"),
        pytest.param(seen(1, 1, 2, 2, 2, wrong=0), 0, 0, 1, id="a label lost"),
    ],
)
def test_counters_that_do_not_are_found(told: audit.Seen, fell: int, ahead: int, off: int) -> None:
    assert (fell_in(told), told.ahead(ROWS), told.off(ROWS, since=4.0)) == (fell, ahead, off)


def outcome(status: int, code: str = "recorded true") -> Outcome:
    return Outcome(Call("/feedback", b"", ""), 0.0, 0.1, status, code, 1)


def sent(*tries: Outcome, answer: str = "recorded true") -> feedback.Sent:
    posted = [Posted(RIGHT, 0.1, len(tries), 200, answer)]
    return feedback.Sent(posted, {"a": tries}, {"a": []}, 1.0)


def found(right: float = 2, total: float = 3, rows: tuple[int, int] = (3, 3)) -> feedback.Found:
    scraped = seen(1, 1, 2, 2, 2)
    return feedback.Found(ROWS, rows, scraped, Counter(), right, total, right / total, 4.0)


def test_a_connection_may_have_broken_while_it_lay_idle() -> None:
    call = Call("/feedback", b"", "")
    tries = [Outcome(call, 1.0, 0.5, 200, "", 1), Outcome(call, 4.0, 0.1, 0, "reset", 1)]
    first, second = feedback.since_the_last(tries)
    assert (first.began, second.began, second.began + second.seconds) == (1.0, 1.5, 4.1)


POSTS = [Post("x", "7", correct=True), Post("y", "7", correct=True), Post("z", "1", correct=False)]
NAMED = {each.id: each.label for each in POSTS}


def kept(told: feedback.Sent, looked: feedback.Found) -> bool:
    return all(each.kept for each in feedback.judged(POSTS, told, looked, NAMED))


def test_labels_that_all_arrived_keep_the_promises() -> None:
    assert kept(sent(outcome(200)), found())
    assert kept(sent(outcome(503, "feedback_unavailable"), outcome(200)), found())


@pytest.mark.parametrize(
    ("told", "looked"),
    [
        pytest.param(sent(outcome(200)), found(right=1), id="one right label less"),
        pytest.param(sent(outcome(200)), found(total=4), id="one label too many"),
        pytest.param(sent(outcome(200)), found(rows=(4, 3)), id="a row twice"),
        pytest.param(sent(outcome(0), outcome(200)), found(), id="broke without a kill"),
        pytest.param(sent(outcome(500), outcome(200)), found(), id="500"),
        pytest.param(sent(outcome(200), answer="recorded false"), found(), id="judged wrongly"),
    ],
)
def test_a_label_that_did_not_breaks_one(told: feedback.Sent, looked: feedback.Found) -> None:
    assert not kept(told, looked)


# Two days.


def test_the_time_of_rules_runs_faster() -> None:
    rules = "expr: x[5m] + y[1d]\nfor: 5m\nlabels: {window: 1d}\n"
    assert hastened(rules, 480, 4) == "expr: x[4000ms] + y[180000ms]\nfor: 625ms\n" + (
        "labels: {window: 1d}\n"
    )


SHIFT = Alert("ConvserveClassesShifted", "warning", "1h")
SLOW = Alert("ConvserveSlow", "warning", "5m")


def test_of_an_alert_on_several_things_the_one_that_fires_counts() -> None:
    labels = {"alertname": SHIFT.name, "severity": "warning", "window": "1h"}
    told = [{"labels": labels, "state": state} for state in ("pending", "firing", "pending")]
    assert timeline.states(told) == {SHIFT: "firing"}


def test_looks_at_alerts_are_put_together() -> None:
    looks = [
        Look(0, {}),
        Look(1, {SHIFT: "pending"}),
        Look(2, {SHIFT: "firing", SLOW: "pending"}),
        Look(3, {SHIFT: "firing"}),
        Look(4, {}),
        Look(5, {SLOW: "pending"}),
    ]
    assert timeline.episodes(looks) == [
        Episode(SHIFT, 1, 2, 4),
        Episode(SLOW, 2, None, 3),
        Episode(SLOW, 5),
    ]


def test_a_time_is_told_by_the_clock_of_its_day() -> None:
    assert timeline.on_the_clock(90, 180) == "day 1, 12:00"
    assert timeline.on_the_clock(181.25, 180) == "day 2, 00:10"


def lived(*episodes: Episode) -> drift.Seen:
    told = (panels.ACCURACY, panels.EXPECTED, panels.CLASSES, panels.CONFIDENCE)
    series = {expression: [(99.0, 0.5), (199.0, 0.7)] for expression in told}
    return drift.Seen(0.0, 100.0, 10, 3, [], episodes, series, Counter())


NEEDED = [Episode(Alert(name, "critical", "1h"), 110, 120) for name in drift.NEEDED]


def test_alerts_on_the_shifted_day_alone_keep_the_promises() -> None:
    assert all(each.kept for each in drift.judged(lived(*NEEDED, Episode(SLOW, 1, 2, 3))))
    assert lived().at_the_end(panels.ACCURACY) == ("0.500", "0.700")


@pytest.mark.parametrize(
    "episodes",
    [
        pytest.param(NEEDED[1:], id="one does not fire"),
        pytest.param([*NEEDED, Episode(SHIFT, 10, 20, 30)], id="one fires on the normal day"),
        pytest.param([*NEEDED[1:], Episode(NEEDED[0].alert, 10, 20)], id="one fires all the time"),
    ],
)
def test_other_alerts_break_one(episodes: list[Episode]) -> None:
    assert not all(each.kept for each in drift.judged(lived(*episodes)))


def test_the_alerts_that_are_promised_are_those_that_ship() -> None:
    shipped = (drift.RULES / "alerts.yml").read_text("utf-8")
    assert all(f"alert: {name}\n" in shipped for name in drift.QUALITY)


def test_a_shifted_picture_is_another_of_the_same_size() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for changed in (days.noisy(picture, np.random.default_rng(2)), days.blurred(picture)):
        assert (changed.shape, changed.dtype) == (picture.shape, picture.dtype)
        assert (changed != picture).any()


# Ids.


def test_a_step_is_timed() -> None:
    steps = []
    seconds = ids.repeatedly(lambda: steps.append(0), 0.01)
    assert 0.01 / len(steps) <= seconds < 0.1


@pytest.mark.parametrize(("ids_seconds", "kept"), [(0.00002, True), (0.00004, False)])
def test_ids_that_cost_too_much_break_the_promise(ids_seconds: float, kept: bool) -> None:
    rounds = [ids.Round(ids_seconds, 0.001, 0.0015)] * 3
    told = ids.of_a_request(ids.Kind("digits", 1), rounds)
    assert all(each.kept for each in told) is kept
    assert told[0].measured.startswith(f"{ids_seconds / 0.001:.2%} (")


# What stands around a service.


@needs("postgres")
def test_a_database_is_empty_and_takes_what_it_gets() -> None:
    with postgres() as address:
        assert asked(address, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [
            (0,)
        ]


@needs("nginx", "prometheus")
def test_both_replicas_answer_behind_nginx_and_are_scraped() -> None:
    folder = newest("digits")
    with only([folder]) as models, convserve(models) as one, convserve(models) as other:
        replicas = {"a": one, "b": other}
        ports = {name: server.port for name, server in replicas.items()}
        with balanced([one, other]) as front, prometheus(ports) as watching:
            for known in published("digits")[:4]:
                assert front.status("POST", "/predict/digits", known.picture, "image/png") == 200
            watching.scraped(time.time())
            told = watching.instant("sum by (instance) (convserve_images_total)")
            counted = {each.labels["instance"]: each.samples[0][1] for each in told}
            assert counted == {"a": 2, "b": 2}
            assert watching.alerts() == []


@needs("nginx")
def test_no_request_fails_where_one_of_two_replicas_is_killed() -> None:
    folder, stop, seen = newest("digits"), threading.Event(), list[int]()
    picture = published("digits")[0].picture
    with (
        only([folder]) as models,
        convserve(models) as one,
        convserve(models) as other,
        balanced([one, other]) as front,
    ):

        def ask() -> None:
            while not stop.is_set():
                seen.append(front.status("POST", "/predict/digits", picture, "image/png"))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for each in clients:
            each.start()
        until(lambda: len(seen) > 100)
        for pid in one.processes():
            os.kill(pid, signal.SIGKILL)
        before = len(seen)
        until(lambda: len(seen) > before + 200)
        stop.set()
        for each in clients:
            each.join()
    assert set(seen) == {200}
