"""The database of labels: one label per prediction, and the sums of what each replica wrote.

A label and the sums that it changes are written in one transaction. A counter read from the sums is
therefore exact whatever is killed, and continues after a restart. Knows nothing of HTTP, ids or
Prometheus.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from serving.errors import FeedbackUnavailable, SettingsError
from serving.feedback.labels import SCALE, Label, Sum
from serving.monitoring.statistics import bin_of

logger = logging.getLogger(__name__)

BACKOFF = 5.0  # seconds during which an unreachable database is not asked again
TIMEOUT = 5  # seconds for a lock, a connection, a statement
SCHEMA_LOCK = 724_861_053  # the advisory lock under which PostgreSQL creates the tables

_column = partial(sa.Column, nullable=False)
_key = partial(sa.Column, primary_key=True)
_schema = sa.MetaData()
_labels = sa.Table(
    "convserve_labels",
    _schema,
    _key("id", sa.String(64)),
    _column("replica", sa.String(255)),
    _column("model", sa.String(255)),
    _column("version", sa.Integer),
    _column("predicted", sa.String(255)),
    _column("confidence", sa.Double),
    _column("label", sa.String(255)),
    _column("source", sa.String(16)),
    _column("predicted_at", sa.BigInteger),  # seconds since 1970
    _column("labelled_at", sa.Double),
    sa.Index("convserve_labels_newest", "model", "labelled_at"),
)
_KIND = ("model", "version", "predicted", "label", "bin")
_TOTALS = ("labels", "confidence", "brier")  # see ``Sum``
_sums = sa.Table(
    "convserve_sums",
    _schema,
    _key("replica", sa.String(255)),
    _key("worker", sa.Integer),  # each worker adds to its own rows: none waits for another's lock
    _key("model", sa.String(255)),
    _key("version", sa.Integer),
    _key("predicted", sa.String(255)),
    _key("label", sa.String(255)),
    _key("bin", sa.Integer),
    *[_column(name, sa.BigInteger) for name in _TOTALS],
)


Inode = tuple[int, int]  # the device and the number of a file


class _File:
    """The file of an SQLite database, as long as it is the one that was opened.

    What is written to a file that was deleted or replaced is lost, and SQLite does not notice.
    """

    LOGS = ("-wal", "-shm")  # beside it: the write-ahead log and its index

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inode: Inode | None = None  # of the file that is open
        self._logs: dict[Path, Inode | None] = {}

    def create(self) -> None:
        """Create a missing file, for its owner alone; SQLite gives the logs the same mode. An
        existing one is not opened here: closing it would drop the locks of this process."""
        with suppress(OSError):  # it exists, or SQLite reports why it cannot be opened
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def opened(self) -> None:
        """Remember the file and its logs, which are open now."""
        self.inode = _inode(self.path)
        logs = [self.path.with_name(self.path.name + end) for end in self.LOGS]
        self._logs = {path: _inode(path) for path in logs}

    @property
    def replaced(self) -> bool:
        """True if the file that was opened was deleted or replaced."""
        return self.inode is not None and _inode(self.path) != self.inode

    def check(self, opened: Inode | None) -> None:
        """Raise FeedbackUnavailable if the file is not the one that was opened."""
        if _inode(self.path) != opened:
            raise FeedbackUnavailable("The database of labels was replaced. Try again.")

    def forget(self) -> None:
        """Remove the logs of the file that was deleted or replaced, or SQLite would apply them to
        its successor. Another worker may have opened that already: its logs stay."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            for path, inode in self._logs.items():
                if inode is not None and _inode(path) == inode:
                    path.unlink()
        finally:
            os.close(folder)


def _inode(path: Path) -> Inode | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Database:
    """The database of labels, as one worker of a replica uses it.

    Each method that reads or writes raises FeedbackUnavailable if the database is unreachable.
    """

    def __init__(self, url: str, *, replica: str, worker: int) -> None:
        """Prepare the engine, which connects on first use; raise SettingsError if the URL is
        malformed."""
        self._replica, self._worker = replica, worker
        self._engine = _engine(url)
        self._insert = postgresql.insert if self._engine.name == "postgresql" else sqlite.insert
        self._has_tables = False
        self._unreachable_until = 0.0
        name = self._engine.url.database or ""
        is_file = self._engine.name == "sqlite" and not name.startswith(("file:", ":memory:"))
        self._file = _File(Path(name)) if is_file else None
        self._opening = threading.Lock()

    @property
    def unreachable(self) -> bool:
        """True for a while after the database did not answer."""
        return time.monotonic() < self._unreachable_until

    @property
    def name(self) -> str:
        """The URL without its password, which may also stand in the query."""
        return self._engine.url.set(query={}).render_as_string(hide_password=True)

    @property
    def missing(self) -> bool:
        """True if this is a file that does not exist; a connection would create it."""
        return self._file is not None and not self._file.path.exists()

    def close(self) -> None:
        """Close the connections. SQLite first moves its log into the one file: it would not do so
        by itself if another process closed at the same moment."""
        if self._engine.name == "sqlite" and self._has_tables:
            with suppress(sa.exc.SQLAlchemyError), self._engine.connect() as connection:
                connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
        self._engine.dispose()

    def write(self, labels: Sequence[Label]) -> list[str | None]:
        """Write labels in one transaction; return for each the label stored before, or None. If
        the database fails, nothing was written, unless it failed in the very commit: writing again
        is idempotent."""
        # The first label of an id counts; one order everywhere: transactions cannot deadlock.
        first: dict[str, Label] = {}
        for each in labels:
            first.setdefault(each.id, each)
        rows = [first[key] for key in sorted(first)]
        with self._transaction() as connection:
            values = [{**vars(each), "replica": self._replica} for each in rows]
            insert = self._insert(_labels).values(values).on_conflict_do_nothing()
            new = set(connection.scalars(insert.returning(_labels.c.id)))
            old = sorted(first.keys() - new)
            pairs = sa.select(_labels.c.id, _labels.c.label).where(_labels.c.id.in_(old))
            stored = dict(connection.execute(pairs).all() if old else ())
            if new:
                self._add(connection, [each for each in rows if each.id in new])
        before: list[str | None] = []
        for each in labels:
            before.append(None if each.id in new else stored.get(each.id, first[each.id].label))
            new.discard(each.id)
        return before

    def _add(self, connection: sa.Connection, labels: Sequence[Label]) -> None:
        """Add new labels to the sums."""
        totals: dict[tuple[Any, ...], list[int]] = {}
        for each in labels:
            bin_ = bin_of(each.confidence)
            kind = (each.model, each.version, each.predicted, each.label, bin_)
            units = round(each.confidence * SCALE)
            more = (1, units, (units - SCALE * each.correct) ** 2)
            totals[kind] = [a + b for a, b in zip(totals.get(kind, (0, 0, 0)), more, strict=True)]
        own = {"replica": self._replica, "worker": self._worker}
        names = (*_KIND, *_TOTALS)
        insert = self._insert(_sums).values(
            [own | dict(zip(names, (*kind, *totals[kind]), strict=True)) for kind in sorted(totals)]
        )
        added = {name: _sums.c[name] + insert.excluded[name] for name in _TOTALS}
        connection.execute(
            insert.on_conflict_do_update(index_elements=list(_sums.primary_key), set_=added)
        )

    def sums(self) -> list[Sum]:
        """Return the sums of all labels that this replica ever wrote."""
        kind = [_sums.c[name] for name in _KIND]
        totals = [sa.func.sum(_sums.c[name]) for name in _TOTALS]
        query = sa.select(*kind, *totals).where(_sums.c.replica == self._replica).group_by(*kind)
        with self._transaction() as connection:
            # PostgreSQL sums integers to decimals.
            return [
                Sum(model, version, predicted, label, bin_, *map(int, totals))
                for model, version, predicted, label, bin_, *totals in connection.execute(query)
            ]

    def newest(self, model: str, count: int) -> list[Label]:
        """Return the newest ``count`` labels of a model from all replicas, the newest first."""
        query = _select_labels().where(_labels.c.model == model)
        with self._transaction() as connection:
            found = connection.execute(query.order_by(_labels.c.labelled_at.desc()).limit(count))
            return [Label(*row) for row in found]

    def count_written(self, model: str, *, since: float) -> dict[int, int]:
        """Return, by version, how many labels this replica wrote since then for predictions made
        since then."""
        query = (
            sa.select(_labels.c.version, sa.func.count())
            .where(_labels.c.replica == self._replica, _labels.c.model == model)
            .where(_labels.c.predicted_at >= int(since), _labels.c.labelled_at >= int(since))
            .group_by(_labels.c.version)
        )
        with self._transaction() as connection:
            return {version: int(count) for version, count in connection.execute(query)}

    def all(self, *, model: str | None = None, since: float = 0.0) -> Iterator[Label]:
        """Yield every label since then, the oldest first."""
        query = _select_labels().where(_labels.c.labelled_at >= since)
        if model is not None:
            query = query.where(_labels.c.model == model)
        with self._transaction() as connection:
            if self._engine.name == "postgresql":
                connection.execute(sa.text("SET LOCAL statement_timeout = 0"))  # slow
            streaming = connection.execution_options(yield_per=1000)
            for row in streaming.execute(query.order_by(_labels.c.labelled_at, _labels.c.id)):
                yield Label(*row)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        sentence = "The database of labels is unreachable. Try again later."
        if self.unreachable:
            raise FeedbackUnavailable(sentence)
        try:
            opened = self._open()
            with self._engine.begin() as connection:
                yield connection
            if self._file is not None:  # whatever was committed to another file is lost
                self._file.check(opened)
        except (sa.exc.SQLAlchemyError, OSError, TypeError) as exc:  # an unknown option in the URL
            self._unreachable_until = time.monotonic() + BACKOFF
            self._has_tables = False  # it may come back empty
            reason = str(getattr(exc, "orig", None) or exc).splitlines()[0]
            extra = {"reason": reason, "database": self.name}
            logger.warning("the database of labels is unreachable", extra=extra)
            raise FeedbackUnavailable(sentence) from exc

    def _open(self) -> Inode | None:
        """Make sure that the tables exist, in the file that is there now. Return its inode."""
        if self._file is None:
            if not self._has_tables:
                self._create_tables()
            return None
        with self._opening:
            if self._file.replaced:
                message = "the database of labels was deleted or replaced: it is opened again"
                logger.warning(message, extra={"database": self.name})
                self._file.forget()
                self._has_tables = False
            if not self._has_tables:
                self._engine.dispose()  # connections to a file that may be gone
                self._file.create()
                self._create_tables()
                self._file.opened()
            return self._file.inode

    def _create_tables(self) -> None:
        """Create missing tables; several processes may do so at once. In a transaction of its own,
        as creating an index blocks writers until the commit."""
        with self._engine.begin() as connection:
            exists = sa.inspect(connection).has_table
            if not all(exists(table.name) for table in _schema.sorted_tables):
                if self._engine.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
                for table in _schema.sorted_tables:
                    connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
                    for index in table.indexes:
                        connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
        self._has_tables = True


def _select_labels() -> sa.Select[Any]:
    return sa.select(*[_labels.c[each.name] for each in fields(Label)])


def _engine(url: str) -> sa.Engine:
    timeouts = {
        "connect_timeout": TIMEOUT,
        "tcp_user_timeout": TIMEOUT * 1000,
        "keepalives_idle": TIMEOUT,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "options": f"-c statement_timeout={TIMEOUT * 1000} -c lock_timeout={TIMEOUT * 1000}",
    }
    pool = {"pool_size": 2, "max_overflow": 2, "pool_timeout": TIMEOUT, "pool_pre_ping": True}
    try:
        if not url.startswith("sqlite"):
            return sa.create_engine(url, connect_args=timeouts, **pool)
        engine = sa.create_engine(url, connect_args={"timeout": TIMEOUT})
    except (ValueError, TypeError, sa.exc.SQLAlchemyError) as exc:
        raise SettingsError(f"CONVSERVE_FEEDBACK_URL cannot be used: {exc}.") from exc
    sa.event.listen(engine, "connect", _write_ahead)
    return engine


def _write_ahead(connection: Any, _: object) -> None:
    """Let readers not wait for writers; an answered label is on the disk."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
