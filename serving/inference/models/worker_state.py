"""What the workers of one run share: small files in a common folder.

Knows nothing of the meaning of the states. The master removes that of a worker that has ended.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

ROUTING = "routing.json"
AGREEMENTS = 256  # kept; far more than versions that are served at a time


class Workers:
    """All workers of a run, as one of them sees them; without a folder it is alone."""

    def __init__(self, folder: Path | None, slot: int) -> None:
        """``slot`` is the number of this worker."""
        self._folder, self._slot = folder, slot
        self._own = b"{}"  # its state

    def publish(self, state: Mapping[str, Any]) -> None:
        """Publish the state of this worker."""
        state = {"worker": self._slot, **state}
        self._own = json.dumps(state).encode()
        self._write(_name(self._slot), self._own)

    def states(self) -> list[dict[str, Any]]:
        """Return the states of all workers that have published one, in the order of their slots."""
        found = {self._slot: json.loads(self._own)}
        for path in self._folder.glob(_name("*")) if self._folder else ():
            try:
                state = json.loads(path.read_bytes())
            except FileNotFoundError:  # it has ended since
                continue
            found.setdefault(state["worker"], state)
        return [found[slot] for slot in sorted(found)]

    @property
    def routing(self) -> bytes:
        """The routing file that a worker accepted last, for workers that start while the current
        file is refused."""
        if self._folder is None or not (self._folder / ROUTING).exists():
            return b"{}"
        return (self._folder / ROUTING).read_bytes()

    def accept_routing(self, routing: bytes) -> None:
        """Remember a routing file for workers that start later."""
        self._write(ROUTING, routing)

    def agree(self, subject: str, proposal: str) -> str:
        """Return what the first worker that asked proposed for ``subject``."""
        if self._folder is None:
            return proposal
        path = self._folder / f"agreed-{hashlib.sha256(subject.encode()).hexdigest()}"
        try:
            with path.open("a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                agreed = file.read()
                file.write("" if agreed else proposal)
            with suppress(FileNotFoundError):  # another worker removes them, too
                for old in sorted(self._folder.glob("agreed-*"), key=os.path.getmtime)[:-AGREEMENTS]:
                    old.unlink()
        except OSError as exc:  # a full disk must not stop a reload
            logger.warning("the other workers could not be asked", extra={"reason": exc.strerror})
            return proposal
        return agreed or proposal

    def _write(self, name: str, data: bytes) -> None:
        if self._folder is None:
            return
        partial = self._folder / f".{name}.{self._slot}"
        try:
            partial.write_bytes(data)
            partial.replace(self._folder / name)
        except OSError as exc:  # a full disk must not stop a reload
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            extra = {"file": name, "reason": exc.strerror}
            logger.warning("the state of this worker could not be published", extra=extra)


def forget(folder: Path, slot: int) -> None:
    """Remove the state of a worker that has ended."""
    (folder / _name(slot)).unlink(missing_ok=True)


def _name(slot: int | str) -> str:
    return f"worker-{slot}.json"
