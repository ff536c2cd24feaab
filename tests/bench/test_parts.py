"""The parts of the benchmarks that could be wrong in silence."""

import io
import math
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bench.clients import bodies, wrk
from bench.clients.traffic import PNG, Call, Outcome, mixture, wrong
from bench.clients.wrk import Closed
from bench.reporting import figures, promises
from bench.rig import environment
from bench.rig.service import newest
from bench.rig.sockets import outbound, owners
from bench.robustness import footprint, kills, mutations
from bench.robustness.soak import Second
from bench.robustness.soak import judged as soaked
from bench.throughput.contenders import OURS
from bench.throughput.results import FORM, LIMIT, Results, Sample
from bench.throughput.serving import rotated

SUMMARY = (
    '{"seconds": 2.0, "requests": 100, "p50_us": 1500, "p99_us": 9000, "refused": 3, "broken": 1}\n'
)


def test_what_wrk_prints_of_a_closed_loop_is_read() -> None:
    seen = wrk.read_closed(f"Running 2s test\n  100 requests in 2.00s\n{SUMMARY}")
    assert seen == Closed(per_second=50.0, p50=1.5, p99=9.0, errors=4)


def test_what_wrk_prints_of_an_open_loop_is_read_by_status() -> None:
    answers = "answer 200 1000\nanswer 503 2000\nanswer 200 3000\nlost 2\nlost 0\n"
    seen = wrk.read_open(f"Running\n\n{answers}{SUMMARY}")
    assert seen.latencies == {200: [1.0, 3.0], 503: [2.0]}
    assert (seen.lost, seen.errors, seen.rate(), seen.at(0.99)) == (3, 4, 1.0, 3.0)


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [figures.percentile(values, share) for share in (0, 0.5, 0.8, 0.81, 1)] == [
        1,
        3,
        4,
        5,
        5,
    ]
    assert math.isnan(figures.percentile([], 0.5))


def test_ratios_are_taken_within_rounds() -> None:
    assert figures.ratios([30, 10, 40], [10, 10, 10]) == "3.00 (1.00–4.00)"
    assert figures.ratios([math.nan, 10], [10, 5]) == "2.00 (2.00–2.00)"
    assert figures.ratios([math.nan], [10]) == "void"


def test_a_table_replaces_what_stands_between_its_marks() -> None:
    page = "above\n<!-- it -->\nold\nolder\n<!-- end of it -->\nbelow\n"
    assert (
        figures.between(page, "it", "new") == "above\n<!-- it -->\nnew\n<!-- end of it -->\nbelow\n"
    )
    with pytest.raises(ValueError, match="one place for the table 'other'"):
        figures.between(page, "other", "new")


def test_every_command_has_its_place_on_the_page() -> None:
    page = promises.PAGE.read_text("utf-8")
    for name in (
        "decision",
        "serving",
        "int8",
        "shipped",
        "precision",
        "footprint",
        "overload",
        "kills",
        "hostile",
        "soak",
    ):
        figures.between(page, name, "")


def test_every_command_of_live_accuracy_has_its_place_on_its_page() -> None:
    page = promises.ACCURACY.read_text("utf-8")
    for name in ("feedback", "drift", "ids"):
        figures.between(page, name, "")


def sample(server: str, number: int, speed: float, *, load: str = "8", errors: int = 0) -> Sample:
    return Sample("digits", load, server, number, Closed(speed, 2.0, 9.0, errors), (0.6, 0.4))


def test_the_tables_tell_medians_ratios_and_what_is_void() -> None:
    results = Results([sample("Flask", 0, 100), sample("Flask", 1, 50)])
    results.samples += [sample(OURS, 1, 200), sample(OURS, 0, 300)]
    results.samples += [sample("Broken", number, 100, errors=1) for number in range(2)]
    results.samples += [sample(LIMIT, number, 500, load="batch 1") for number in range(2)]
    results.samples += [sample(OURS, number, 250, load=FORM) for number in range(2)]
    told = results.told()
    assert f"| {OURS} | 250 · 9 |" in told
    assert "| Flask | 3.50 (3.00–4.00) |" in told
    assert "| Broken | void · void |" in told
    assert f"| Convserve, {FORM} | 250 | 0.50 (0.50–0.50) of batch 1 |" in told
    assert "| busier : other | 60% : 40% | 60% : 40% |" in told
    assert {each.server for each in results.void} == {"Broken"}
    assert results.compared() in told


def test_everybody_comes_first_in_turn() -> None:
    assert [rotated("abc", by)[0] for by in range(4)] == ["a", "b", "c", "a"]


def test_what_is_missing_is_told_before_anything_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as ended:
        environment.require(programs=["wrk"], packages=["flask", "no_such_package"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "'wrk' is not on PATH" in told
    assert "'no_such_package' is not installed" in told
    assert "'flask'" not in told


def test_a_broken_promise_ends_with_1(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- it -->\n\n<!-- end of it -->\n")
    good = promises.Promise("memory", "≤ 2 MB", "1 MB")
    bad = promises.Promise("5xx", "0", "1", kept=False)
    assert promises.told([good], page=page, name="it", above="") == 0
    assert promises.told([good, bad], page=page, name="it", above="") == 1
    assert "| 5xx | 0 | 1 | **no** |" in page.read_text()


def test_the_sockets_of_a_process_are_told_by_who_opened_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            ours = client.getsockname()[1]
            accepted, _ = listener.accept()
            with accepted:
                assert owners([os.getpid()], port) == {ours: os.getpid()}
                assert ("tcp", "127.0.0.1", port) in outbound([os.getpid()], port)
                assert ("tcp", "127.0.0.1", ours) not in outbound([os.getpid()], port)


def test_of_the_system_calls_those_that_reach_out_are_found() -> None:
    out = 'connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("192.0.2.1")}, 16)'
    asks = '8 sendto(4, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(53)}, 16) = 1'
    local = 'connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0'
    answer = '8 sendto(9, "HTTP/1.1 200 OK", 15, 0, NULL, 0) = 15'
    assert footprint.reaching(f"{out}\n{local}\n{asks}\n{answer}") == [out, asks]


SEVEN = Call("/predict/digits", b"7", PNG)


def broke(at: float, port: int) -> Outcome:
    return Outcome(SEVEN, at, 0.1, 0, "reset", port)


@pytest.mark.parametrize(
    ("outcome", "fine"),
    [
        pytest.param(broke(10.0, 1), True, id="the killed worker's"),
        pytest.param(broke(10.0, 3), True, id="made in the moment of the kill"),
        pytest.param(broke(10.0, 2), False, id="another worker's"),
        pytest.param(broke(20.0, 1), False, id="long after"),
    ],
)
def test_only_requests_in_the_killed_worker_may_break(outcome: Outcome, fine: bool) -> None:
    assert kills.blameless(outcome, [kills.Kill(10.05, 77, {1: 77, 2: 78})]) is fine


def test_series_of_a_metric_are_added_up() -> None:
    page = 'a_total{x="1",y="2"} 3.0\na_total{x="1",y="3"} 4.0\na_total{x="2",y="2"} 5.0\nb 6.0\n'
    assert kills.counted(page, "a_total", x="1") == 7
    assert kills.counted(page, "b") == 6


@pytest.mark.parametrize(
    ("status", "code", "kept"),
    [
        (200, "", True),
        (503, "overloaded", True),
        (504, "deadline_exceeded", True),
        (408, "body_too_slow", True),
        (503, "no error of the one shape: b''", False),
        (500, "internal_error", False),
        (400, "invalid_image", False),
        (0, "reset", False),
    ],
)
def test_an_answer_is_what_was_promised_or_a_refusal_with_its_reason(
    status: int, code: str, kept: bool
) -> None:
    assert Outcome(SEVEN, 0.0, 0.1, status, code, 1).kept is kept


def test_the_mixture_holds_every_model_and_every_refusal() -> None:
    calls = mixture()
    assert {call.expected for call in wrong()} <= {call.expected for call in calls}
    for name in bodies.NAMES:
        assert any(call.path == f"/predict/{name}" for call in calls)


def second(pss_mb: float) -> Second:
    return Second(1.0, pss_mb, 2, 10, 1.0, 2.0, 0, 0, "")


@pytest.mark.parametrize(("last", "kept"), [(120.0, True), (200.0, False)])
def test_memory_that_grows_breaks_a_promise(last: float, kept: bool) -> None:
    rows = [second(100)] * 40 + [second(last)] * 10
    assert all(each.kept for each in soaked(rows, [], [], [])) is kept


def test_a_strange_answer_in_the_soak_breaks_a_promise() -> None:
    strange = [Outcome(SEVEN, 0.0, 0.1, 500, "internal_error", 1)]
    assert not all(each.kept for each in soaked([second(100)], strange, [], []))


def test_the_same_seed_damages_alike_and_another_does_not() -> None:
    made = [mutations.mutated(1, index) for index in range(200)]
    assert made == [mutations.mutated(1, index) for index in range(200)]
    assert made != [mutations.mutated(2, index) for index in range(200)]
    assert len(set(made)) > 190
    assert not set(made) & set(mutations.sound())


def test_every_accepted_format_is_damaged() -> None:
    starts = {data[:4] for data in mutations.sound()}
    assert {b"\x89PNG", b"RIFF", b"GIF8"} < starts
    assert {start[:2] for start in starts} > {b"\xff\xd8", b"BM"}


@pytest.mark.parametrize("damage", [mutations.swell, mutations.scans])
def test_a_sound_image_gets_far_too_many_pieces(damage: mutations.Damage) -> None:
    sound = [data for data in mutations.sound() if data[:4] in mutations.EMPTY]
    sound += [data for data in mutations.sound() if data[:2] in mutations.EMPTY]
    for seed, data in enumerate(sound):
        assert len(damage(random.Random(seed), data)) >= len(data) + 4 * mutations.MANY[0]


@pytest.mark.parametrize(("start", "take", "make"), mutations.FORMATS, ids=["PNG", "JPEG", "WebP"])
def test_a_file_is_cut_into_pieces_and_put_together_again(
    start: bytes,
    take: Callable[[bytes], list[mutations.Piece]],
    make: Callable[[list[mutations.Piece]], bytes],
) -> None:
    for data in mutations.sound():
        if data.startswith(start):
            assert make(take(data)) == data


def test_a_photograph_is_always_the_same() -> None:
    (path, *_) = sorted((newest("cats_vs_dogs") / "golden").glob("*.png"))
    assert bodies.photograph(path) == bodies.photograph(path)
    with Image.open(io.BytesIO(bodies.photograph(path))) as image:
        assert (image.format, image.size) == ("JPEG", bodies.PHOTO)
