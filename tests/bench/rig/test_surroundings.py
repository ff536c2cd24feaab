"""nginx, PostgreSQL and Prometheus around two running replicas."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from bench.clients.labels import published
from bench.rig.nginx import balanced
from bench.rig.postgres import postgres, query
from bench.rig.prometheus import hastened, prometheus
from bench.rig.service import Server, convserve, newest, only, until
from tests.bench.needs import needs


@pytest.fixture
def replicas() -> Iterator[dict[str, Server]]:
    with only([newest("digits")]) as models, convserve(models) as one, convserve(models) as other:
        yield {"a": one, "b": other}


def test_the_time_of_rules_runs_faster() -> None:
    rules = "expr: x[5m] + y[1d]\nfor: 5m\nlabels: {window: 1d}\n"
    assert hastened(rules, 480, 4) == "expr: x[4000ms] + y[180000ms]\nfor: 625ms\n" + (
        "labels: {window: 1d}\n"
    )


@needs("postgres")
def test_a_new_database_is_empty() -> None:
    statement = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    with postgres() as address:
        assert query(address, statement) == [(0,)]


@needs("nginx", "prometheus")
def test_both_replicas_answer_behind_nginx_and_are_scraped(replicas: dict[str, Server]) -> None:
    ports = {name: server.port for name, server in replicas.items()}
    with balanced(list(replicas.values())) as front, prometheus(ports, scrape=0.5) as watching:
        for known in published("digits")[:4]:
            assert front.status("POST", "/predict/digits", known.picture, "image/png") == 200
        watching.scraped(time.time())
        found = watching.instant("sum by (instance) (convserve_images_total)")
        counted = {each.labels["instance"]: each.samples[0][1] for each in found}
        assert counted == {"a": 2, "b": 2}
        assert watching.instant("ALERTS") == []


@needs("nginx")
def test_no_request_fails_if_one_of_two_replicas_is_killed(replicas: dict[str, Server]) -> None:
    picture, stop, seen = published("digits")[0].picture, threading.Event(), list[int]()
    with balanced(list(replicas.values())) as front:

        def ask() -> None:
            while not stop.is_set():
                seen.append(front.status("POST", "/predict/digits", picture, "image/png"))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for each in clients:
            each.start()
        until(lambda: len(seen) > 100, 60, "The replicas do not answer.")
        for pid in replicas["a"].processes():
            os.kill(pid, signal.SIGKILL)
        before = len(seen)
        until(lambda: len(seen) > before + 200, 60, "The other replica does not answer.")
        stop.set()
        for each in clients:
            each.join()
    assert set(seen) == {200}
