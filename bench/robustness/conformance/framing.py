"""Send each case to the engine whole, byte by byte and in random cuts, and a stranger's request
behind it, as a proxy does that reuses the connection.

Every cut must give the answers and the state that the case expects, and the stranger's request
its own answer or none.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.reporting.promises import Promise, benchmark, fact, none_of
from bench.robustness.conformance.cases import Case, cases, get
from bench.robustness.conformance.engine import exchange

STRANGER = get(line="GET /stranger HTTP/1.1").encode()


@dataclass(frozen=True)
class Finding:
    """A case that was answered otherwise than expected."""

    case: Case
    pieces: tuple[bytes, ...]
    answers: tuple[str, ...]
    open: bool
    stranger: tuple[str, ...]

    def __str__(self) -> str:
        expected = f"{self.case.answers}, {'open' if self.case.open else 'closed'}"
        got = f"{self.answers}, {'open' if self.open else 'closed'}, stranger {self.stranger}"
        where = f"RFC {self.case.clause}, {self.case.about}"
        return f"{where}: expected {expected}; got {got}\n  {self.pieces!r}"


def cuts(sent: bytes, count: int, rng: random.Random) -> Iterator[tuple[bytes, ...]]:
    """Yield the bytes whole, one by one, and in ``count`` random cuts."""
    yield (sent,)
    yield tuple(bytes([byte]) for byte in sent)
    for _ in range(count):
        places = sorted(rng.sample(range(len(sent) + 1), min(len(sent), rng.randint(1, 6))))
        edges = zip([0, *places], [*places, len(sent)], strict=True)
        yield tuple(sent[start:end] for start, end in edges if start < end)


async def check(case: Case, pieces: tuple[bytes, ...]) -> Finding | None:
    """Return how the engine departs from a case, if it does."""
    answers, stays = await exchange(pieces, eof=case.eof)
    stranger: list[str] = []
    if not case.eof:
        both, _ = await exchange((*pieces, STRANGER), eof=False)
        stranger = both[len(answers) :]
    right = ["200 GET /stranger "] if case.open else []
    if (tuple(answers), stays, stranger) == (case.answers, case.open, right):
        return None
    return Finding(case, pieces, tuple(answers), stays, tuple(stranger))


async def run(of: Sequence[Case], count: int, seed: int) -> tuple[int, list[Finding]]:
    """Return how many streams were sent, and all findings."""
    rng, streams, findings = random.Random(seed), 0, []
    for each in of:
        for pieces in cuts(each.sent, count, rng):
            streams += 1
            if (finding := await check(each, pieces)) is not None:
                findings.append(finding)
    return streams, findings


@benchmark(
    cuts=(10, "random cuts of each case"),
    seed=(1, "seed of the cuts"),
)
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Run all cases; return the conditions and the rows of the table."""
    all_cases = cases()
    streams, findings = asyncio.run(run(all_cases, options.cuts, options.seed))
    for finding in findings[:50]:
        print(finding, file=sys.stderr)
    clauses = {each.clause for each in all_cases}
    above = f"Each whole, byte by byte and in {options.cuts} random cuts of seed {options.seed}."
    return above, [
        fact("cases", f"{len(all_cases):,}, of {len(clauses)} clauses"),
        fact("streams", f"{streams:,}, each with a stranger's request behind it, too"),
        none_of("streams answered otherwise than the clause says", len(findings)),
    ]


if __name__ == "__main__":
    sys.exit(main())
