"""The database of labels: that of each prediction, once, and the sums of what each replica wrote.

Knows SQLAlchemy, SQLite and PostgreSQL; knows nothing of HTTP, of ids or of Prometheus.

A label and the sums that it changes are written in one transaction. So a counter that is read from
the sums is exact whatever is killed, and after a restart it goes on where it stopped.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from serving.errors import FeedbackUnavailable, SettingsError
from serving.feedback.labels import SCALE, Label, Sum
from serving.monitoring.statistics import bin_of

logger = logging.getLogger(__name__)

AWAY = 5.0  # seconds for which a database that did not answer is not asked again
PATIENCE = 5  # seconds for a lock, a connection, a statement
PREPARING = 724_861_053  # the advisory lock under which PostgreSQL makes the tables

_schema = sa.MetaData()
_labels = sa.Table(
    "convserve_labels",
    _schema,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("replica", sa.String(255), nullable=False),
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("predicted", sa.String(255), nullable=False),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("label", sa.String(255), nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("predicted_at", sa.BigInteger, nullable=False),  # seconds since 1970
    sa.Column("labelled_at", sa.Double, nullable=False),
    sa.Index("convserve_labels_newest", "model", "labelled_at"),
)
_SUMMED = ("model", "version", "predicted", "label", "bin")
_sums = sa.Table(
    "convserve_sums",
    _schema,
    sa.Column("replica", sa.String(255), primary_key=True),
    # Each worker adds to rows of its own: none waits for another.
    sa.Column("worker", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(255), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("predicted", sa.String(255), primary_key=True),
    sa.Column("label", sa.String(255), primary_key=True),
    sa.Column("bin", sa.Integer, primary_key=True),
    sa.Column("labels", sa.BigInteger, nullable=False),
    sa.Column("confidence", sa.BigInteger, nullable=False),  # in 65,535ths
    sa.Column("brier", sa.BigInteger, nullable=False),  # in squares of such
)
_ADDED = ("labels", "confidence", "brier")


class Store:
    """The database, as one worker of a replica writes it."""

    def __init__(self, url: str, *, replica: str, worker: int) -> None:
        """Nothing is asked before it is needed.

        Raises:
            SettingsError: the URL is none.
        """
        self._replica, self._worker = replica, worker
        self._engine = _engine(url)
        self._insert = postgresql.insert if self._engine.name == "postgresql" else sqlite.insert
        self._prepared = False
        self._away_until = 0.0

    @property
    def away(self) -> bool:
        """Whether it did not answer a moment ago."""
        return time.monotonic() < self._away_until

    @property
    def name(self) -> str:
        """Its URL, without a password, which may stand behind the question mark, too."""
        return self._engine.url.set(query={}).render_as_string(hide_password=True)

    @property
    def missing(self) -> bool:
        """Whether it is a file that is not there; to ask it would make it."""
        file = self._engine.url.database or ""
        return self._engine.name == "sqlite" and "file:" not in file and not Path(file).exists()

    def close(self) -> None:
        """Let its connections go. SQLite first puts all into its one file; by itself it would not
        where another process does so in the same moment."""
        if self._engine.name == "sqlite" and self._prepared:
            with suppress(sa.exc.SQLAlchemyError), self._engine.connect() as connection:
                connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
        self._engine.dispose()

    def record(self, given: Sequence[Label]) -> list[str | None]:
        """Write labels in one transaction; of each the one that was there before, or None.

        Raises:
            FeedbackUnavailable: the database is away. Nothing was written, unless it went in the
                very moment of the commit: to send them again does no harm.
        """
        # Of each id the first; in one order everywhere, or two transactions could wait for each
        # other.
        first: dict[str, Label] = {}
        for each in given:
            first.setdefault(each.id, each)
        rows = [first[key] for key in sorted(first)]
        with self._transaction() as connection:
            new = self._new(connection, rows)
            known = self._known(connection, first.keys() - new)
            self._add(connection, [each for each in rows if each.id in new])
        answers: list[str | None] = []
        for each in given:
            answers.append(None if each.id in new else known.get(each.id, first[each.id].label))
            new.discard(each.id)
        return answers

    def _new(self, connection: sa.Connection, rows: Sequence[Label]) -> set[str]:
        values = [{**vars(each), "replica": self._replica} for each in rows]
        insert = self._insert(_labels).values(values).on_conflict_do_nothing()
        return set(connection.scalars(insert.returning(_labels.c.id)))

    def _known(self, connection: sa.Connection, keys: set[str]) -> dict[str, str]:
        if not keys:
            return {}
        wanted = sa.select(_labels.c.id, _labels.c.label).where(_labels.c.id.in_(sorted(keys)))
        return dict(connection.execute(wanted).all())

    def _add(self, connection: sa.Connection, rows: Sequence[Label]) -> None:
        added: dict[tuple[Any, ...], list[int]] = {}
        for each in rows:
            place = bin_of(each.confidence)
            kind = (each.model, each.version, each.predicted, each.label, place)
            units = round(each.confidence * SCALE)
            so_far = added.setdefault(kind, [0, 0, 0])
            for which, more in enumerate((1, units, (units - SCALE * each.correct) ** 2)):
                so_far[which] += more
        if not added:
            return
        own = {"replica": self._replica, "worker": self._worker}
        names = (*_SUMMED, *_ADDED)
        insert = self._insert(_sums).values(
            [own | dict(zip(names, (*kind, *added[kind]), strict=True)) for kind in sorted(added)]
        )
        total = {name: _sums.c[name] + insert.excluded[name] for name in _ADDED}
        connection.execute(
            insert.on_conflict_do_update(index_elements=list(_sums.primary_key), set_=total)
        )

    def sums(self) -> list[Sum]:
        """What this replica wrote, ever.

        Raises:
            FeedbackUnavailable: the database is away.
        """
        keys = [_sums.c[name] for name in _SUMMED]
        totals = [sa.func.sum(_sums.c[name]) for name in _ADDED]
        wanted = sa.select(*keys, *totals).where(_sums.c.replica == self._replica).group_by(*keys)
        with self._transaction() as connection:
            # PostgreSQL adds whole numbers up to decimals.
            return [
                Sum(model, version, predicted, label, place, *map(int, added))
                for model, version, predicted, label, place, *added in connection.execute(wanted)
            ]

    def newest(self, model: str, count: int) -> list[Label]:
        """The labels of a model that came last, from all replicas, the newest first.

        Raises:
            FeedbackUnavailable: the database is away.
        """
        wanted = _wanted().where(_labels.c.model == model)
        with self._transaction() as connection:
            found = connection.execute(wanted.order_by(_labels.c.labelled_at.desc()).limit(count))
            return [Label(*row) for row in found]

    def written(self, model: str, *, since: float) -> dict[int, int]:
        """How many labels this replica wrote since then, for predictions made since then, by
        version.

        Raises:
            FeedbackUnavailable: the database is away.
        """
        own = (_labels.c.replica == self._replica) & (_labels.c.model == model)
        wanted = (
            sa.select(_labels.c.version, sa.func.count())
            .where(own & (_labels.c.predicted_at >= int(since)))
            .where(_labels.c.labelled_at >= int(since))
            .group_by(_labels.c.version)
        )
        with self._transaction() as connection:
            return {version: int(count) for version, count in connection.execute(wanted)}

    def all(self, *, model: str | None = None, since: float = 0.0) -> Iterator[Label]:
        """Every label since then, the oldest first.

        Raises:
            FeedbackUnavailable: the database is away.
        """
        wanted = _wanted().where(_labels.c.labelled_at >= since)
        if model is not None:
            wanted = wanted.where(_labels.c.model == model)
        with self._transaction() as connection:
            if self._engine.name == "postgresql":
                connection.execute(sa.text("SET LOCAL statement_timeout = 0"))  # all take long
            options = connection.execution_options(yield_per=1000)
            for row in options.execute(wanted.order_by(_labels.c.labelled_at, _labels.c.id)):
                yield Label(*row)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        if self.away:
            raise FeedbackUnavailable("The database of labels is away. Try again later.")
        try:
            if not self._prepared:
                self._prepare()
            with self._engine.begin() as connection:
                yield connection
        except (sa.exc.SQLAlchemyError, TypeError) as exc:  # of an unknown option in the URL
            self._away_until = time.monotonic() + AWAY
            self._prepared = False  # it may come back empty
            reason = str(getattr(exc, "orig", None) or exc).splitlines()[0]
            about = {"reason": reason, "database": self.name}
            logger.warning("the database of labels is away", extra=about)
            raise FeedbackUnavailable("The database of labels is away. Try again later.") from exc

    def _prepare(self) -> None:
        """Make the tables where they are not there; several processes may come at once. In a
        transaction of its own: to make an index keeps all writers out until that ends."""
        with self._engine.begin() as connection:
            there = sa.inspect(connection).has_table
            if not all(there(table.name) for table in _schema.sorted_tables):
                if self._engine.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(PREPARING)))
                for table in _schema.sorted_tables:
                    connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
                    for index in table.indexes:
                        connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
        self._prepared = True


def _wanted() -> sa.Select[Any]:
    return sa.select(*[_labels.c[each.name] for each in fields(Label)])


def _engine(url: str) -> sa.Engine:
    try:
        return _made(url)
    except (ValueError, TypeError, sa.exc.SQLAlchemyError) as exc:
        raise SettingsError(f"CONVSERVE_FEEDBACK_URL cannot be used: {exc}.") from exc


def _made(url: str) -> sa.Engine:
    if url.startswith("sqlite"):
        engine = sa.create_engine(url, connect_args={"timeout": PATIENCE})
        sa.event.listen(engine, "connect", _write_ahead)
        return engine
    patience = PATIENCE * 1000
    return sa.create_engine(
        url,
        pool_size=2,
        max_overflow=2,
        pool_timeout=PATIENCE,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": PATIENCE,
            "tcp_user_timeout": patience,
            "keepalives_idle": PATIENCE,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "options": f"-c statement_timeout={patience} -c lock_timeout={patience}",
        },
    )


def _write_ahead(connection: Any, _: object) -> None:
    """Readers do not wait for writers; a label that was answered is on the disk."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
