"""The database of labels: SQLite always, PostgreSQL where Debian's package of it is installed."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy

from bench.rig import postgres
from bench.rig.environment import program
from serving.errors import FeedbackUnavailable, SettingsError
from serving.feedback import database as stores
from serving.feedback.database import Store
from serving.feedback.labels import SCALE, Label

SEVEN = Label("a" * 28, "digits", 3, "7", 0.99, "7", "user", 1_700_000_000, 1_700_000_100.5)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if program("postgres") is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/labels.db"
    address: str = request.getfixturevalue("server")
    engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS convserve_labels, convserve_sums"))
    return address


Opened = Callable[..., Store]


@pytest.fixture
def opened(url: str) -> Iterator[Opened]:
    with ExitStack() as closing:

        def open_one(replica: str = "one", worker: int = 0) -> Store:
            made = Store(url, replica=replica, worker=worker)
            closing.callback(made.close)
            return made

        yield open_one


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened()


def of(key: str, label: str = "7", **changes: object) -> Label:
    return replace(SEVEN, id=key, label=label, **changes)  # type: ignore[arg-type]


def test_a_label_is_kept_once_and_told_when_it_comes_again(store: Store) -> None:
    assert store.record([of("a"), of("b", "1")]) == [None, None]
    assert store.record([of("b", "1"), of("a", "9"), of("c")]) == ["1", "7", None]
    assert {each.id: each.label for each in store.all()} == {"a": "7", "b": "1", "c": "7"}


def test_of_one_transaction_the_first_label_of_an_id_counts(store: Store) -> None:
    assert store.record([of("a"), of("a"), of("a", "9")]) == [None, "7", "7"]
    assert sum(each.labels for each in store.sums()) == 1


def test_a_label_comes_back_as_it_was(store: Store) -> None:
    store.record([SEVEN])
    assert store.newest("digits", 1) == [SEVEN]


def test_sums_are_those_of_the_rows_of_this_replica(opened: Opened, store: Store) -> None:
    other = opened("two")
    beside = opened(worker=1)
    store.record([of("a"), of("b", "1"), of("c", confidence=0.55)])
    beside.record([of("d"), of("a")])
    other.record([of("e"), of("a")])
    found = {(each.label, each.bin): each for each in store.sums()}
    assert {key: each.labels for key, each in found.items()} == {
        ("7", 9): 2,
        ("1", 9): 1,
        ("7", 5): 1,
    }
    assert found["7", 9].confidence / SCALE == pytest.approx(2 * 0.99, abs=1e-4)
    assert found["1", 9].brier / SCALE**2 == pytest.approx(0.99**2, abs=1e-4)
    assert found["7", 5].brier / SCALE**2 == pytest.approx(0.45**2, abs=1e-4)
    assert [each.labels for each in other.sums()] == [1]
    assert store.written("digits", since=0) == {3: 4}
    assert store.written("digits", since=1_800_000_000) == {}


def test_the_newest_come_first_and_all_in_order(store: Store) -> None:
    store.record([of(key, labelled_at=float(at)) for at, key in enumerate("abcd")])
    store.record([of("x", model="other")])
    assert [each.id for each in store.newest("digits", 2)] == ["d", "c"]
    assert [each.id for each in store.all(model="digits", since=1)] == ["b", "c", "d"]
    assert len(list(store.all())) == 5


def test_many_at_once_are_each_kept_once(opened: Opened) -> None:
    keys = [f"{number:04}" for number in range(200)]
    answers: list[list[str | None]] = []

    def write(worker: int) -> None:
        store = opened(worker=worker)
        for start in range(0, 200, 20):
            part = keys[start : start + 20]
            answers.append(store.record([of(key) for key in (part if worker % 2 else part[::-1])]))

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(before is None for answer in answers for before in answer) == 200
    assert sum(each.labels for each in opened().sums()) == 200


def test_a_database_that_is_away_is_told_and_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"sqlite:///{tmp_path}/nowhere/labels.db", replica="one", worker=0)
    with pytest.raises(FeedbackUnavailable, match="away"):
        store.record([SEVEN])
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(FeedbackUnavailable):
        store.sums()
    monkeypatch.setattr(stores, "AWAY", 0)
    store._away_until = 0
    assert store.record([SEVEN]) == [None]


def test_a_database_that_comes_back_empty_is_prepared_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stores, "AWAY", 0)
    store = Store(f"sqlite:///{tmp_path}/labels.db", replica="one", worker=0)
    store.record([SEVEN])
    with sqlite3.connect(tmp_path / "labels.db") as connection:
        connection.executescript("DROP TABLE convserve_labels; DROP TABLE convserve_sums")
    with pytest.raises(FeedbackUnavailable):
        store.record([SEVEN])
    assert "no such table" in str(vars(caplog.records[-1])["reason"])
    assert store.record([SEVEN]) == [None]


@pytest.mark.parametrize("url", ["postgresql+psycopg://u@h:x/db", "sqlite:///a?timeout=x&x=y", "?"])
def test_a_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises((SettingsError, FeedbackUnavailable)):
        Store(url, replica="one", worker=0).sums()


def test_an_export_keeps_no_writer_out(opened: Opened, store: Store) -> None:
    store.record([of("a"), of("b")])
    rows = opened("two").all()
    assert next(rows).id == "a"
    assert opened("three").record([of("c")]) == [None]
    assert [each.id for each in rows] == ["b"]


def test_postgresql_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PATIENCE", 2)
    store = Store("postgresql+psycopg://nobody@127.0.0.1:1/none", replica="one", worker=0)
    with pytest.raises(FeedbackUnavailable):
        store.record([SEVEN])


def test_nothing_of_a_transaction_that_fails_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/labels.db"
    store = Store(url, replica="one", worker=0)
    store.record([SEVEN])
    with sqlite3.connect(tmp_path / "labels.db") as connection:
        connection.execute("ALTER TABLE convserve_sums RENAME TO gone")
    with pytest.raises(FeedbackUnavailable):
        store.record([of("b")])
    with sqlite3.connect(tmp_path / "labels.db") as connection:
        assert connection.execute("SELECT count(*) FROM convserve_labels").fetchone() == (1,)


@pytest.mark.parametrize("url", ["user:secret@host/db", "user@host/db?password=secret"])
def test_the_name_of_a_database_tells_no_password(url: str) -> None:
    store = Store(f"postgresql+psycopg://{url}", replica="one", worker=0)
    assert "secret" not in store.name
    assert "host/db" in store.name
