"""100,000 labels, 30 % of them twice, while workers are killed: is the accuracy exact at the end?

Clients post labels to two replicas, some wrong on purpose, each until it is answered. Then the
replicas are restarted, and PostgreSQL and Prometheus are compared with what was sent.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice, repeat
from pathlib import Path

from bench.accuracy import audit
from bench.clients import bodies
from bench.clients.feedback_posts import Post, Poster, PostOutcome, make_posts, posters, repeated
from bench.clients.labels import Predicted, predict, published
from bench.clients.traffic import EXCUSED, Outcome, blameless
from bench.reporting.figures import number, percentile
from bench.reporting.promises import ACCURACY, Promise, benchmark, equal, fact, none_of, nothing
from bench.rig.kill import Kill, kill, wait_for_workers
from bench.rig.postgres import postgres
from bench.rig.prometheus import Prometheus, prometheus
from bench.rig.replicas import KEY, addresses, replicas
from bench.rig.service import Server, newest, only

MODEL = "digits"
FORM = 64  # images of a request
PREDICTING = 4  # concurrent requests: as many images as the queue of one worker holds
TWICE = 0.3  # of all posts
WRONG = 0.12  # of the labels, on purpose
SETTLED = 3.0  # seconds of scrapes after the restart


@dataclass(frozen=True)
class Sent:
    """What the clients saw, and which workers were killed meanwhile."""

    posts: Sequence[PostOutcome]
    outcomes: Mapping[str, Sequence[Outcome]]  # of each try, by replica
    kills: Mapping[str, Sequence[Kill]]
    seconds: float

    @property
    def tries(self) -> list[Outcome]:
        """The outcomes of all replicas."""
        return list(chain(*self.outcomes.values()))

    @property
    def unexplained(self) -> int:
        """The number of broken connections to workers that were not killed."""
        return sum(
            each.broke and not blameless(each, self.kills[name])
            for name, several in self.outcomes.items()
            for each in several
        )


@dataclass(frozen=True)
class Found:
    """The content of the database and the figures of Prometheus after the restart."""

    rows: Sequence[audit.Row]
    scraped: audit.Scraped
    fallen: str  # the counters that fell
    right: float
    total: float
    accuracy: float
    stopped: float  # when all replicas had stopped, in seconds since 1970


def predictions(servers: Sequence[Server], count: int) -> list[Predicted]:
    """Return predictions of the replicas in turn."""
    pictures = list(islice(cycle(published(MODEL)), count))
    forms = [pictures[place : place + FORM] for place in range(0, count, FORM)]
    with ThreadPoolExecutor(PREDICTING) as threads:
        return list(chain(*threads.map(predict, cycle(servers), repeat(MODEL), forms)))


def send(servers: Mapping[str, Server], posts: Sequence[Post], options: argparse.Namespace) -> Sent:
    """Post all labels, and kill a worker now and then until the last post is answered."""
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
            each for client in clients for each in with_idle_time(client.clients[place].outcomes)
        ]
        for place, name in enumerate(servers)
    }
    return Sent([each for client in clients for each in client.outcomes], outcomes, kills, seconds)


def with_idle_time(outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """Extend each outcome to the end of the previous one: an idle connection may break too."""
    ended: float | None = None
    for each in outcomes:
        began = each.began if ended is None else ended
        ended = each.began + each.seconds
        yield replace(each, began=began, seconds=ended - began)


def posting(clients: Sequence[Poster], seconds: float) -> bool:
    """Wait up to ``seconds``; return False as soon as no client is posting any more."""
    end = time.monotonic() + seconds
    for client in clients:
        client.join(max(0.0, end - time.monotonic()))
    return any(client.is_alive() for client in clients)


def run(models: Path, options: argparse.Namespace) -> tuple[list[Post], Sent, Found]:
    """Run the benchmark; return the posts, one for each id, and what was sent and found."""
    rng, ports, began = random.Random(options.seed), addresses(), time.time()
    again = round(TWICE * options.posts)
    with postgres() as database, prometheus(ports) as watching:
        with replicas(models, database, ports) as servers:
            ids = predictions(list(servers.values()), options.posts - again)
            posts = make_posts(ids, list(bodies.pictures(MODEL)), wrong=WRONG, rng=rng)
            sent = send(servers, repeated(posts, again, rng), options)
            for each in servers.values():
                wait_for_workers(each)
        stopped = time.time()
        with replicas(models, database, ports):
            watching.scraped(time.time() + SETTLED)
            return posts, sent, look_up(database, watching, time.time() - began, stopped)


def look_up(database: str, watching: Prometheus, seconds: float, stopped: float) -> Found:
    """Query the database and Prometheus for the last ``seconds``."""
    return Found(
        audit.rows(database),
        audit.scraped(watching, seconds),
        audit.fallen(watching, seconds),
        watching.value(audit.RIGHT),
        watching.value(audit.ALL),
        watching.value(f"{audit.RIGHT} / {audit.ALL}"),
        stopped,
    )


def keys(posts: Sequence[Post]) -> dict[str, str]:
    """Return the label that was sent for each id, by the id's key in the database."""
    from serving.feedback.ids import Signer

    signer = Signer([KEY], days=1)
    return {signer.read(each.id).key: each.label for each in posts}


def judge(
    posts: Sequence[Post], sent: Sent, found: Found, expected: Mapping[str, str]
) -> list[Promise]:
    """Return the rows of the table."""
    return [*judge_answers(sent), *judge_found(posts, found, expected)]


def judge_answers(sent: Sent) -> list[Promise]:
    """Return the rows about the answers to clients."""
    kept, posts, tries = sum(each.kept for each in sent.posts), len(sent.posts), sent.tries
    statuses = Counter(each.status for each in tries)
    odd = {k: v for k, v in sorted(statuses.items()) if k not in (0, 200, 503)}
    recorded = Counter(e.post.id for e in sent.posts if e.answer.startswith("recorded"))
    took = [each.seconds * 1000 for each in sent.posts]
    p50, p99 = (number(percentile(took, share)) for share in (0.5, 0.99))
    kept_of, broke_of = f"{kept:,} of {posts:,}", f" of {statuses[0]}"
    return [
        Promise("posts answered 200, and judged correctly", "all", kept_of, kept == posts),
        fact("posts a second", number(posts / sent.seconds)),
        fact("a post with all its tries: median · p99", f"{p50} · {p99} ms"),
        fact("kills", f"{sum(map(len, sent.kills.values()))}"),
        fact("tries that were repeated", f"{len(tries) - posts:,}"),
        fact("of these answered 503", f"{statuses[503]:,}"),
        none_of(f"connections that broke, {EXCUSED}", sent.unexplained, broke_of),
        nothing("other statuses than 200 and 503", f"{odd or ''}"),
        none_of("ids answered `recorded` twice", sum(count > 1 for count in recorded.values())),
    ]


def judge_found(posts: Sequence[Post], found: Found, expected: Mapping[str, str]) -> list[Promise]:
    """Return the rows about the content of the database, and the figures of Prometheus."""
    right, total = sum(each.correct for each in posts), len(posts)
    counts = len(found.rows), len({each.id for each in found.rows})
    return [
        equal("rows and ids in the database", "{:,} and {:,}", [len(expected)] * 2, counts),
        none_of("labels changed, lost or never sent", audit.differing(found.rows, expected)),
        equal(
            "right and all labels, as Prometheus adds them up after a restart",
            "{:,.0f} of {:,.0f}",
            (right, total),
            (found.right, found.total),
        ),
        equal("accuracy, as Prometheus computes it", "{:.6f}", [right / total], [found.accuracy]),
        nothing("counters of labels that fell", found.fallen),
        none_of(
            "samples above the rows that the replica had written",
            found.scraped.ahead(found.rows),
            f" of {found.scraped.samples:,}",
        ),
        none_of(
            "samples after the restart that differ from the rows",
            found.scraped.off(found.rows, found.stopped),
        ),
    ]


@benchmark(
    ACCURACY,
    programs=["postgres", "prometheus"],
    packages=["sqlalchemy", "psycopg"],
    posts=(100_000, "number of posts"),
    clients=(16, "number of clients"),
    every=(5.0, "seconds between two kills"),
    seed=(1, "seed for labels and kills"),
)
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Post labels and compare; return the conditions and the rows of the table."""
    with only([newest(MODEL)]) as models:
        posts, sent, found = run(models, options)
    above = (
        f"{options.posts:,} posts of labels for {len(posts):,} predictions of `{MODEL}`,"
        f" {options.clients} clients, two replicas, {sent.seconds:.0f} seconds:"
    )
    rows = judge(posts, sent, found, keys(posts))
    return above, rows


if __name__ == "__main__":
    sys.exit(main())
