from bench.clients import wrk
from bench.clients.wrk import Closed

SUMMARY = (
    '{"seconds": 2.0, "requests": 100, "p50_us": 1500, "p99_us": 9000, "refused": 3, "broken": 1}\n'
)


def test_the_output_of_a_closed_loop_is_parsed() -> None:
    seen = wrk.read_closed(f"Running 2s test\n  100 requests in 2.00s\n{SUMMARY}")
    assert seen == Closed(per_second=50.0, p50=1.5, p99=9.0, errors=4)


def test_the_output_of_an_open_loop_is_parsed_by_status() -> None:
    answers = "answer 200 1000\nanswer 503 2000\nanswer 200 3000\nlost 2\nlost 0\n"
    seen = wrk.read_open(f"Running\n\n{answers}{SUMMARY}")
    assert seen.latencies == {200: [1.0, 3.0], 503: [2.0]}
    assert (seen.lost, seen.errors, seen.rate(), seen.at(0.99)) == (3, 4, 1.0, 3.0)
