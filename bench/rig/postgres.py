"""A private PostgreSQL from Debian's packages: empty, on a free port, deleted at the end.

Knows PostgreSQL's programs and SQLAlchemy's URL; knows nothing of what is stored in it.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.rig.environment import program
from bench.rig.service import Server, free_port, started

OWNER = "postgres"  # of Debian's package: PostgreSQL refuses to run as root
NAME = "convserve"  # of the only database user
# No socket in a folder of another user, and nothing in /dev/shm.
_SETTINGS = (
    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
    *("-c", "dynamic_shared_memory_type=mmap"),
)


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of a running database. Commits are durable: ``fsync`` stays on."""
    as_owner = ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"]
    with tempfile.TemporaryDirectory(prefix="convserve-postgres-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, OWNER, OWNER)
        else:
            as_owner = []
        data, port = str(Path(folder, "data")), free_port()
        _make(data, as_owner)
        with started(
            [*as_owner, str(program("postgres")), "-D", data, "-p", str(port), *_SETTINGS],
            port=port,
            ready=_ready,
            environment=os.environ,
            folder=Path(folder),
            stop_signal=signal.SIGINT,  # at once; SIGTERM would wait for all connections to close
        ):
            yield url(port)


def url(port: int) -> str:
    """Return the address of a database in SQLAlchemy's form."""
    return f"postgresql+psycopg://{NAME}@127.0.0.1:{port}/postgres"


def query(address: str, statement: str) -> Sequence[Sequence[Any]]:
    """Return the rows of an SQL statement, executed on a new connection."""
    from sqlalchemy import NullPool, create_engine, text

    with create_engine(address, poolclass=NullPool).connect() as connection:
        return connection.execute(text(statement)).all()


def _make(data: str, as_owner: Sequence[str]) -> None:
    command = [*as_owner, str(program("initdb")), "--pgdata", data, "--username", NAME]
    command += ["--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
    done = subprocess.run(
        command, cwd=Path(data).parent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"initdb exited with {done.returncode}: {done.stderr or done.stdout}")


def _ready(server: Server) -> bool:
    from sqlalchemy.exc import OperationalError

    try:
        return bool(query(url(server.port), "SELECT 1"))
    except OperationalError:
        return False
