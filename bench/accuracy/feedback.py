"""100,000 labels, 30 % of them twice, while workers are killed: is the accuracy true to the last?

Two replicas, one PostgreSQL, one Prometheus. Clients post labels for ids that were predicted
before, some of them wrong on purpose, each until it is answered. Then the replicas are stopped and
started again, and what the database holds and Prometheus computes is held against what was sent.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice, repeat
from pathlib import Path

from bench.accuracy import audit
from bench.clients import bodies
from bench.clients.feedback_posts import Post, Posted, Poster, labelled, posters, repeated
from bench.clients.labels import Predicted, predict, published
from bench.clients.traffic import Outcome
from bench.reporting.figures import number, percentile
from bench.reporting.promises import ACCURACY, Promise, add_page, told
from bench.rig.environment import require
from bench.rig.postgres import postgres
from bench.rig.prometheus import Prometheus, prometheus
from bench.rig.replicas import KEY, addresses, replicas
from bench.rig.service import Server, newest, only
from bench.robustness.kills import Kill, blameless, kill, wait_for_workers

MODEL = "digits"
FORM = 64  # images of a request
PREDICTING = 4  # requests at once: as many images as the queue of one worker holds
TWICE = 0.3  # of all posts
WRONG = 0.12  # of the labels, on purpose
SETTLED = 3.0  # seconds of scrapes after the restart


@dataclass(frozen=True)
class Sent:
    """What the clients saw, and what was done meanwhile."""

    posted: Sequence[Posted]
    outcomes: Mapping[str, Sequence[Outcome]]  # of each try, by replica
    kills: Mapping[str, Sequence[Kill]]
    seconds: float

    @property
    def tries(self) -> list[Outcome]:
        """Those at all replicas."""
        return [each for several in self.outcomes.values() for each in several]

    @property
    def strange(self) -> int:
        """Connections that broke, but for those of killed workers."""
        return sum(
            each.broke and not blameless(each, self.kills[name])
            for name, several in self.outcomes.items()
            for each in several
        )


@dataclass(frozen=True)
class Found:
    """What the database holds, and what Prometheus tells, after the restart."""

    rows: Sequence[audit.Row]
    counts: tuple[int, int]
    seen: audit.Seen
    fell: Counter[str]
    right: float
    total: float
    accuracy: float
    stopped: float  # when no replica was there any more, in seconds since 1970


def predicted(servers: Sequence[Server], count: int) -> list[Predicted]:
    """So many ids, from one replica after another."""
    pictures = list(islice(cycle(published(MODEL)), count))
    forms = [pictures[place : place + FORM] for place in range(0, count, FORM)]
    with ThreadPoolExecutor(PREDICTING) as threads:
        several = threads.map(predict, cycle(servers), repeat(MODEL), forms)
        return [each for one in several for each in one]


def send(servers: Mapping[str, Server], posts: Sequence[Post], options: argparse.Namespace) -> Sent:
    """Post all, and kill a worker now and then until the last was answered."""
    rng = random.Random(options.seed)
    kills: dict[str, list[Kill]] = {name: [] for name in servers}
    began = time.monotonic()
    clients = posters(list(servers.values()), posts, options.clients)
    while posting(clients, options.every):
        name = rng.choice(list(servers))
        if done := kill(servers[name], rng):
            kills[name].append(done)
    seconds = time.monotonic() - began
    outcomes = {
        name: [
            each for client in clients for each in since_the_last(client.clients[place].outcomes)
        ]
        for place, name in enumerate(servers)
    }
    return Sent([each for client in clients for each in client.posted], outcomes, kills, seconds)


def since_the_last(outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """Each from the answer before it on: its connection may have broken while it lay idle."""
    ended: float | None = None
    for each in outcomes:
        began = each.began if ended is None else ended
        ended = each.began + each.seconds
        yield replace(each, began=began, seconds=ended - began)


def posting(clients: Sequence[Poster], seconds: float) -> bool:
    """Whether some still post after so many seconds; known at once where none does."""
    end = time.monotonic() + seconds
    for client in clients:
        client.join(max(0.0, end - time.monotonic()))
    return any(client.is_alive() for client in clients)


def measured(models: Path, options: argparse.Namespace) -> tuple[list[Post], Sent, Found]:
    """The whole of it; the posts are one for each id."""
    rng, ports, began = random.Random(options.seed), addresses(), time.time()
    again = round(TWICE * options.posts)
    with postgres() as database, prometheus(ports) as watching:
        with replicas(models, database, ports) as servers:
            ids = predicted(list(servers.values()), options.posts - again)
            posts = labelled(ids, list(bodies.pictures(MODEL)), wrong=WRONG, rng=rng)
            sent = send(servers, repeated(posts, again, rng), options)
            for each in servers.values():
                wait_for_workers(each)
        stopped = time.time()
        with replicas(models, database, ports):
            watching.scraped(time.time() + SETTLED)
            return posts, sent, look(database, watching, began=began, stopped=stopped)


def look(database: str, watching: Prometheus, *, began: float, stopped: float) -> Found:
    """After the restart."""
    return Found(
        audit.rows(database),
        audit.counts(database),
        audit.seen(watching, time.time() - began),
        audit.fallen(watching, time.time() - began),
        watching.value(audit.RIGHT),
        watching.value(audit.ALL),
        watching.value(f"{audit.RIGHT} / {audit.ALL}"),
        stopped,
    )


def keys(posts: Sequence[Post]) -> dict[str, str]:
    """The label that was sent for each id, under the name that the database gives it."""
    from serving.feedback.ids import Signer

    signer = Signer([KEY], days=1)
    return {signer.read(each.id).key: each.label for each in posts}


def judged(
    posts: Sequence[Post], sent: Sent, found: Found, named: Mapping[str, str]
) -> list[Promise]:
    """The lines of the table."""
    return [*answered(sent), *stored(found, named), *computed(posts, found)]


def answered(sent: Sent) -> list[Promise]:
    """What the clients were told."""
    kept = sum(each.kept for each in sent.posted)
    statuses = Counter(each.status for each in sent.tries)
    odd = {k: v for k, v in sorted(statuses.items()) if k not in (0, 200, 503)}
    recorded = Counter(e.post.id for e in sent.posted if e.answer.startswith("recorded"))
    twice = sum(count > 1 for count in recorded.values())
    retries = len(sent.tries) - len(sent.posted)
    took = [each.seconds * 1000 for each in sent.posted]
    p50, p99 = (number(percentile(took, share)) for share in (0.5, 0.99))
    return [
        Promise(
            "posts answered 200, and judged rightly",
            "all",
            f"{kept:,} of {len(sent.posted):,}",
            kept == len(sent.posted),
        ),
        Promise("posts a second", "", number(len(sent.posted) / sent.seconds)),
        Promise("a post with all its tries: median · p99", "", f"{p50} · {p99} ms"),
        Promise("kills", "", f"{sum(map(len, sent.kills.values()))}"),
        Promise("tries that were repeated", "", f"{retries:,}"),
        Promise("of these answered 503", "", f"{statuses[503]:,}"),
        Promise(
            "connections that broke, but for those of killed workers",
            "0",
            f"{sent.strange} of {statuses[0]}",
            not sent.strange,
        ),
        Promise("other statuses than 200 and 503", "none", f"{odd or 'none'}", not odd),
        Promise("ids answered `recorded` twice", "0", f"{twice}", not twice),
    ]


def stored(found: Found, named: Mapping[str, str]) -> list[Promise]:
    """What the database holds."""
    differing = audit.differing(found.rows, named)
    return [
        Promise(
            "rows and ids in the database",
            f"{len(named):,} of each",
            f"{found.counts[0]:,} and {found.counts[1]:,}",
            found.counts == (len(named), len(named)),
        ),
        Promise("labels other than sent, lost or strange", "0", f"{differing}", not differing),
    ]


def computed(posts: Sequence[Post], found: Found) -> list[Promise]:
    """What Prometheus makes of it."""
    right, all_of_them = sum(each.correct for each in posts), len(posts)
    ahead = found.seen.ahead(found.rows)
    off = found.seen.off(found.rows, found.stopped)
    return [
        Promise(
            "right and all labels, as Prometheus adds them up after a restart",
            f"{right:,} of {all_of_them:,}",
            f"{found.right:,.0f} of {found.total:,.0f}",
            (found.right, found.total) == (right, all_of_them),
        ),
        Promise(
            "accuracy, as Prometheus computes it",
            f"{right / all_of_them:.6f}",
            f"{found.accuracy:.6f}",
            found.accuracy == right / all_of_them,
        ),
        Promise("counters of labels that fell", "none", audit.told(found.fell), not found.fell),
        Promise(
            "samples above the rows that the replica had written", "0", _of(ahead, found), not ahead
        ),
        Promise("samples after the restart that are not those rows", "0", f"{off}", not off),
    ]


def _of(count: int, found: Found) -> str:
    return f"{count} of {found.seen.samples:,}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and tell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy.feedback", description=__doc__)
    parser.add_argument("--posts", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--every", type=float, default=5, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=1)
    add_page(parser, ACCURACY)
    options = parser.parse_args(arguments)
    require(programs=["postgres", "prometheus"], packages=["sqlalchemy", "psycopg"])
    with only([newest(MODEL)]) as models:
        posts, sent, found = measured(models, options)
    return told(
        judged(posts, sent, found, keys(posts)),
        page=options.page,
        name="feedback",
        above=f"{options.posts:,} posts of labels for {len(posts):,} predictions of `{MODEL}`,"
        f" {options.clients} clients, two replicas, {sent.seconds:.0f} seconds:",
    )


if __name__ == "__main__":
    sys.exit(main())
