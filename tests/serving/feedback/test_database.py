"""The database of labels, on SQLite and on a PostgreSQL of Debian's package."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from bench.rig import postgres
from bench.rig.environment import program
from serving.errors import FeedbackUnavailable, SettingsError
from serving.feedback import database as module
from serving.feedback.database import Database
from serving.feedback.labels import SCALE, Label

SEVEN = Label("a" * 28, "digits", 3, "7", 0.99, "7", "user", 1_700_000_000, 1_700_000_100.5)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if program("postgres") is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/labels.db"
    address: str = request.getfixturevalue("server")
    engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS convserve_labels, convserve_sums"))
    return address


Open = Callable[..., Database]


@pytest.fixture
def connect(url: str) -> Iterator[Open]:
    with ExitStack() as stack:

        def open_one(replica: str = "one", worker: int = 0) -> Database:
            return stack.enter_context(closing(Database(url, replica=replica, worker=worker)))

        yield open_one


@pytest.fixture
def database(connect: Open) -> Database:
    return connect()


def of(key: str, label: str = "7", **changes: object) -> Label:
    return replace(SEVEN, id=key, label=label, **changes)  # type: ignore[arg-type]


def test_a_label_is_stored_once_and_returned_when_it_is_sent_again(database: Database) -> None:
    assert database.write([of("a"), of("b", "1")]) == [None, None]
    assert database.write([of("b", "1"), of("a", "9"), of("c")]) == ["1", "7", None]
    assert {each.id: each.label for each in database.all()} == {"a": "7", "b": "1", "c": "7"}


def test_the_first_label_of_an_id_in_a_transaction_counts(database: Database) -> None:
    assert database.write([of("a"), of("a"), of("a", "9")]) == [None, "7", "7"]
    assert sum(each.labels for each in database.sums()) == 1


def test_a_label_is_read_as_it_was_written(database: Database) -> None:
    database.write([SEVEN])
    assert database.newest("digits", 1) == [SEVEN]


def test_sums_match_the_rows_of_this_replica(connect: Open, database: Database) -> None:
    other = connect("two")
    neighbour = connect(worker=1)
    database.write([of("a"), of("b", "1"), of("c", confidence=0.55)])
    neighbour.write([of("d"), of("a")])
    other.write([of("e"), of("a")])
    found = {(each.label, each.bin): each for each in database.sums()}
    assert {key: each.labels for key, each in found.items()} == {
        ("7", 9): 2,
        ("1", 9): 1,
        ("7", 5): 1,
    }
    assert found["7", 9].confidence / SCALE == pytest.approx(2 * 0.99, abs=1e-4)
    assert found["1", 9].brier / SCALE**2 == pytest.approx(0.99**2, abs=1e-4)
    assert found["7", 5].brier / SCALE**2 == pytest.approx(0.45**2, abs=1e-4)
    assert [each.labels for each in other.sums()] == [1]
    assert database.count_written("digits", since=0) == {3: 4}
    assert database.count_written("digits", since=1_800_000_000) == {}


def test_newest_labels_come_first_and_all_in_order(database: Database) -> None:
    database.write([of(key, labelled_at=float(at)) for at, key in enumerate("abcd")])
    database.write([of("x", model="other")])
    assert [each.id for each in database.newest("digits", 2)] == ["d", "c"]
    assert [each.id for each in database.all(model="digits", since=1)] == ["b", "c", "d"]
    assert len(list(database.all())) == 5


def test_concurrent_writers_store_each_label_once(connect: Open) -> None:
    keys = [f"{number:04}" for number in range(200)]
    answers: list[list[str | None]] = []

    def write(worker: int) -> None:
        database = connect(worker=worker)
        for start in range(0, 200, 20):
            part = keys[start : start + 20]
            answers.append(
                database.write([of(key) for key in (part if worker % 2 else part[::-1])])
            )

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(before is None for answer in answers for before in answer) == 200
    assert sum(each.labels for each in connect().sums()) == 200


def test_an_unreachable_database_is_reported_and_not_asked_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(f"sqlite:///{tmp_path}/nowhere/labels.db", replica="one", worker=0)
    with pytest.raises(FeedbackUnavailable, match="unreachable"):
        database.write([SEVEN])
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(FeedbackUnavailable):
        database.sums()
    monkeypatch.setattr(module, "BACKOFF", 0)
    database._unreachable_until = 0
    assert database.write([SEVEN]) == [None]


def test_a_database_that_returns_empty_gets_its_tables_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "BACKOFF", 0)
    database = Database(f"sqlite:///{tmp_path}/labels.db", replica="one", worker=0)
    database.write([SEVEN])
    with sqlite3.connect(tmp_path / "labels.db") as connection:
        connection.executescript("DROP TABLE convserve_labels; DROP TABLE convserve_sums")
    with pytest.raises(FeedbackUnavailable):
        database.write([SEVEN])
    assert "no such table" in str(vars(caplog.records[-1])["reason"])
    assert database.write([SEVEN]) == [None]


@pytest.mark.parametrize("url", ["postgresql+psycopg://u@h:x/db", "sqlite:///a?timeout=x&x=y", "?"])
def test_a_malformed_url_is_reported(url: str) -> None:
    with pytest.raises((SettingsError, FeedbackUnavailable)):
        Database(url, replica="one", worker=0).sums()


def test_an_export_blocks_no_writer(connect: Open, database: Database) -> None:
    database.write([of("a"), of("b")])
    rows = connect("two").all()
    assert next(rows).id == "a"
    assert connect("three").write([of("c")]) == [None]
    assert [each.id for each in rows] == ["b"]


def test_an_unreachable_postgresql_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 2)
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none", replica="one", worker=0)
    with pytest.raises(FeedbackUnavailable):
        database.write([SEVEN])


def test_nothing_of_a_failed_transaction_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/labels.db"
    database = Database(url, replica="one", worker=0)
    database.write([SEVEN])
    with sqlite3.connect(tmp_path / "labels.db") as connection:
        connection.execute("ALTER TABLE convserve_sums RENAME TO gone")
    with pytest.raises(FeedbackUnavailable):
        database.write([of("b")])
    with sqlite3.connect(tmp_path / "labels.db") as connection:
        assert connection.execute("SELECT count(*) FROM convserve_labels").fetchone() == (1,)


@pytest.mark.parametrize("url", ["user:secret@host/db", "user@host/db?password=secret"])
def test_the_name_of_a_database_holds_no_password(url: str) -> None:
    database = Database(f"postgresql+psycopg://{url}", replica="one", worker=0)
    assert "secret" not in database.name
    assert "host/db" in database.name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.db"


def opened(path: Path, stack: ExitStack, worker: int = 0) -> Database:
    database = Database(f"sqlite:///{path}", replica="one", worker=worker)
    return stack.enter_context(closing(database))


def stored(path: Path) -> list[str]:
    """Return the ids in a file, as another program reads it."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [key for (key,) in connection.execute("SELECT id FROM convserve_labels ORDER BY id")]


@pytest.mark.parametrize("logs", [True, False])
def test_a_file_that_was_deleted_is_created_again(
    path: Path, caplog: pytest.LogCaptureFixture, logs: bool
) -> None:
    with ExitStack() as stack:
        workers = [opened(path, stack, worker) for worker in range(2)]
        for worker, database in enumerate(workers):
            database.write([of(f"old {worker}")])
        path.unlink()
        for log in path.parent.glob("labels.db-*") if logs else ():
            log.unlink()
        for key in range(3):
            for worker, database in enumerate(workers):
                assert database.write([of(f"{key} {worker}")]) == [None]
        assert [each.labels for each in workers[0].sums()] == [6]
        assert stored(path) == [f"{key} {worker}" for key in range(3) for worker in range(2)]
        warnings = [
            each.message for each in caplog.records if "deleted or replaced" in each.message
        ]
        assert len(warnings) == 2  # one of each worker
    assert len(stored(path)) == 6


@pytest.mark.parametrize("logs", [True, False])
def test_a_file_that_was_replaced_by_a_copy_is_opened(
    path: Path, tmp_path: Path, logs: bool
) -> None:
    copy = tmp_path / "copy.db"
    with ExitStack() as stack:
        opened(copy, stack).write([of("copied")])
    with ExitStack() as stack:
        workers = [opened(path, stack, worker) for worker in range(2)]
        for worker, database in enumerate(workers):
            database.write([of(f"old {worker}")])
        copy.rename(path)
        for log in path.parent.glob("labels.db-*") if logs else ():
            log.unlink()
        for worker, database in enumerate(workers):
            assert database.write([of(f"new {worker}")]) == [None]
    assert stored(path) == ["copied", "new 0", "new 1"]


def test_labels_committed_to_a_file_that_is_gone_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        database = opened(path, stack)
        database.write([of("a")])
        add = Database._add

        def add_and_delete(*given: Any) -> None:
            add(*given)
            path.unlink()

        monkeypatch.setattr(Database, "_add", add_and_delete)
        with pytest.raises(FeedbackUnavailable, match="replaced"):
            database.write([of("b")])
        monkeypatch.undo()
        assert not database.unreachable
        assert database.write([of("b")]) == [None]
    assert stored(path) == ["b"]


def test_after_an_error_no_connection_to_a_file_that_is_gone_is_used(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF", 0)
    with ExitStack() as stack:
        database = opened(path, stack)
        database.write([of("a")])
        path.unlink()
        path.mkdir()
        with pytest.raises(FeedbackUnavailable, match="unreachable"):
            database.write([of("b")])
        path.rmdir()
        assert database.write([of("b")]) == [None]
    assert stored(path) == ["b"]


def test_a_new_file_is_its_owners_alone(path: Path) -> None:
    with ExitStack() as stack:
        opened(path, stack).write([SEVEN])
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("labels.db", "labels.db-wal", "labels.db-shm"), "0o600")
