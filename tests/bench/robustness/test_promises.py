"""The judgements of the robustness benchmarks."""

import pytest

from bench.clients.traffic import PNG, Call, Outcome
from bench.clients.wrk import Open
from bench.robustness import footprint, kills, overload, soak
from bench.robustness.soak import Second

SEVEN = Call("/predict/digits", b"7", PNG)


def second(pss_mb: float) -> Second:
    return Second(1.0, pss_mb, 2, 10, 1.0, 2.0, 0, 0, "")


@pytest.mark.parametrize(("last", "kept"), [(120.0, True), (200.0, False)])
def test_memory_that_grows_breaks_a_promise(last: float, kept: bool) -> None:
    rows = [second(100)] * 40 + [second(last)] * 10
    assert all(each.kept for each in soak.judge(rows, [], [], [])) is kept


def test_an_unexpected_answer_in_the_soak_breaks_a_promise() -> None:
    unexpected = [Outcome(SEVEN, 0.0, 0.1, 500, "internal_error", 1)]
    assert not all(each.kept for each in soak.judge([second(100)], unexpected, [], []))


def test_the_series_of_a_metric_are_summed() -> None:
    page = 'a_total{x="1",y="2"} 3.0\na_total{x="1",y="3"} 4.0\na_total{x="2",y="2"} 5.0\nb 6.0\n'
    assert kills.sum_of(page, "a_total", x="1") == 7
    assert kills.sum_of(page, "b") == 6


@pytest.mark.parametrize(
    ("answers", "in_flight", "broken"),
    [
        (1, 1, []),
        (2, 1, ["answers counted in /metrics, and received"]),
        (1, 2, ["requests in flight afterwards, that for /metrics included"]),
    ],
)
def test_counters_that_differ_from_the_answers_break_a_promise(
    answers: int, in_flight: int, broken: list[str]
) -> None:
    page = f'convserve_requests_total{{route="/predict/<name>",status="200"}} {answers}\n'
    page += f"convserve_requests_in_flight {in_flight}\n"
    outcomes = [Outcome(SEVEN, 0.0, 0.1, 200, "", 1)]
    rows = kills.judge(outcomes, [], page)
    assert [each.what for each in rows if not each.kept] == broken


def test_outbound_system_calls_are_found() -> None:
    out = 'connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("192.0.2.1")}, 16)'
    asks = '8 sendto(4, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(53)}, 16) = 1'
    local = 'connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0'
    answer = '8 sendto(9, "HTTP/1.1 200 OK", 15, 0, NULL, 0) = 15'
    found = footprint.outbound_calls(f"{out}\n{local}\n{asks}\n{answer}")
    assert found == [out, asks]


@pytest.mark.parametrize(
    ("latencies", "lost", "broken"),
    [
        ({200: [1.0] * 95, 503: [2.0]}, 0, []),
        ({200: [1.0] * 95, 503: [2.0]}, 1, ["connections that broke"]),
        ({200: [1.0] * 95, 503: [99.0]}, 0, ["refused with 503, median"]),
        ({200: [1.0] * 95, 503: [2.0], 500: [1.0]}, 0, ["other answers"]),
        (
            {200: [1.0] * 80, 503: [2.0]},
            0,
            ["answered 200, of the capacity", "answered 200, of that"],
        ),
    ],
)
def test_a_storm_is_judged_by_goodput_refusals_and_connections(
    latencies: dict[int, list[float]], lost: int, broken: list[str]
) -> None:
    rows = overload.judge_storm(Open(1.0, latencies, lost), capacity=100, highest=100)
    assert [each.what for each in rows if not each.kept] == broken
