"""What the workers of one run tell each other: small files in the folder that they share.

Knows the folder and JSON; knows nothing of what is told. The master forgets a worker that is gone.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

State = dict[str, Any]

ROUTING, AGREED = "routing.json", "agreed.json"
SUBJECTS = 256  # that are agreed on; far more than versions that are served at a time


class Peers:
    """The workers of a run, seen by one of them; without a folder it is alone."""

    def __init__(self, folder: Path | None, slot: int) -> None:
        """``slot`` is this worker's number."""
        self._folder, self._slot = folder, slot
        self._own: State = {}
        self._routing = b"{}"

    def tell(self, state: Mapping[str, Any]) -> None:
        """Show the others how this worker is."""
        self._own = {"worker": self._slot, "process": os.getpid(), **state}
        self._write(_name(self._slot), json.dumps(self._own).encode())

    def states(self) -> list[State]:
        """How all workers are that have begun."""
        found = {self._slot: self._own}
        for path in self._folder.glob(_name("*")) if self._folder else ():
            try:
                state = json.loads(path.read_bytes())
            except FileNotFoundError:  # it ended since
                continue
            found.setdefault(state["worker"], state)
        return [found[slot] for slot in sorted(found)]

    @property
    def routing(self) -> bytes:
        """The routing file that a worker took last: what one that starts now goes by, where the
        file of now is refused."""
        if self._folder is None:
            return self._routing
        try:
            return (self._folder / ROUTING).read_bytes()
        except FileNotFoundError:
            return b"{}"

    def took(self, routing: bytes) -> None:
        """Remember a routing file for workers that start later."""
        self._routing = routing
        self._write(ROUTING, routing)

    def agreed(self, subject: str, state: str, proposal: str) -> str:
        """What all workers of the run take for a subject in this state: what the first of them
        proposed."""
        if self._folder is None:
            return proposal
        try:
            with (self._folder / f"{AGREED}.lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                return self._agreed(self._folder / AGREED, subject, state, proposal)
        except OSError:  # a full folder must not stop a reload
            logger.exception("the other workers cannot be asked")
            return proposal

    def _agreed(self, path: Path, subject: str, state: str, proposal: str) -> str:
        known: dict[str, list[str]] = json.loads(path.read_bytes()) if path.exists() else {}
        state = hashlib.sha256(state.encode()).hexdigest()
        if known.get(subject, [""])[0] != state:
            known.pop(subject, None)
            latest = list(known.items())[1 - SUBJECTS :]
            known = {**dict(latest), subject: [state, proposal]}
            self._write(AGREED, json.dumps(known).encode())
        return known[subject][1]

    def _write(self, name: str, data: bytes) -> None:
        if self._folder is None:
            return
        partial = self._folder / f".{name}.{self._slot}"
        try:
            partial.write_bytes(data)
            partial.replace(self._folder / name)
        except OSError:  # a full folder must not stop a reload
            logger.exception("the other workers cannot be told")


def forget(folder: Path, slot: int) -> None:
    """A worker is gone."""
    (folder / _name(slot)).unlink(missing_ok=True)


def _name(slot: int | str) -> str:
    return f"worker-{slot}.json"
