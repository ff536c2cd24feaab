"""A folder of models in which versions of one model are published and removed."""

import http.client
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rig.service import Server


@dataclass(frozen=True)
class Publication:
    """The folder, the name of the model, and a published version that all versions copy."""

    models: Path
    name: str
    source: Path

    def publish(self, version: int) -> None:
        """Publish a copy under another number, atomically by a rename, as training does."""
        made = self.models / f".{version}.partial"
        shutil.copytree(self.source, made, ignore=shutil.ignore_patterns("SHA256SUMS", "report"))
        for path in made.glob("*.onnx"):
            with path.open("ab") as graph:
                graph.write(metadata(b"version", str(version).encode()))
        (self.models / self.name).mkdir(exist_ok=True)
        made.rename(self.models / self.name / str(version))

    def remove(self, version: int) -> None:
        """Remove a version."""
        hidden = self.models / f".{version}.removed"
        (self.models / self.name / str(version)).rename(hidden)
        shutil.rmtree(hidden)

    def route(self, rules: dict[str, Any]) -> None:
        """Publish the file ``routing.json`` with rules for the model."""
        made = self.models / ".routing.json"
        made.write_text(json.dumps({self.name: rules}))
        made.rename(self.models / "routing.json")


def metadata(key: bytes, text: bytes) -> bytes:
    """Return bytes that set an entry of the metadata at the end of an ONNX file.

    Of two entries with one key, the last counts.
    """

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    return field(14, field(1, key) + field(2, text))


def converged(server: Server, name: str, expected: dict[str, Any]) -> bool:
    """Return True if all workers are ready and serve the model as expected."""
    try:
        status, body = server.answer("GET", "/models")
    except (OSError, http.client.HTTPException):
        return False
    states = json.loads(body)["workers"] if status == 200 else []
    return len(states) == len(server.workers()) and all(
        state["state"] == "ready" and expected.items() <= state["models"].get(name, {}).items()
        for state in states
    )
