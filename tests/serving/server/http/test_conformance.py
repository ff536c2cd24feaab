"""The engine answers every case of framing as its clause says, however the bytes are cut."""

import asyncio
import dataclasses
import re

import pytest

from bench.robustness.conformance import framing
from bench.robustness.conformance.cases import Case, cases

CASES = cases()


def test_there_are_many_cases_and_each_names_its_clause() -> None:
    assert len(CASES) > 700
    assert len({(each.clause, each.about, each.sent) for each in CASES}) == len(CASES)
    assert all(re.fullmatch(r"\d{4}, \d+(\.\d+)*", each.clause) for each in CASES)


def test_the_engine_answers_each_case_however_it_is_cut() -> None:
    streams, findings = asyncio.run(framing.run(CASES, 2, 1))
    assert streams == 4 * len(CASES)
    assert not findings, "\n".join(map(str, findings))


@pytest.mark.parametrize(
    "wrong",
    [{"answers": ("400",)}, {"answers": ()}, {"open": False}, {"sent": b"GET / HTTP/1.1\r\n\r\n"}],
)
def test_another_answer_or_state_is_a_finding(wrong: dict[str, object]) -> None:
    right = Case("9112, 3", "GET", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", ("200 GET / ",), open=True)
    case = dataclasses.replace(right, **wrong)  # type: ignore[arg-type]
    assert asyncio.run(framing.check(right, (right.sent,))) is None
    finding = asyncio.run(framing.check(case, (case.sent,)))
    assert finding is not None
    assert str(finding).startswith("RFC 9112, 3, GET: expected ")
