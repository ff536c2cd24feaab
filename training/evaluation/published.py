"""A published version, read back: its metadata, its card and what it costs.

Knows the contract in ``models/README.md`` and ONNX files; knows nothing of Keras or of how a
version came to be.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from training.errors import TrainingError, UsageError


@dataclass(frozen=True)
class Version:
    """One folder ``models/<name>/<version>``."""

    folder: Path

    def __str__(self) -> str:
        return f"{self.metadata['name']} {self.metadata['version']}"

    @property
    def file(self) -> Path:
        """Where the graph is."""
        return self.folder / "model.onnx"

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The file, parsed.

        Raises:
            UsageError: it is no ONNX file.
        """
        try:
            return onnx.load(self.file)
        except TrainingError:
            raise  # a signal may arrive here too
        except Exception as exc:  # protobuf has classes of its own, and not always the same
            raise UsageError(f"{self.file} is not readable as ONNX: {exc}") from exc

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What the file says of itself, its JSON read.

        Raises:
            UsageError: it does not say its name, version and labels.
        """
        held = {entry.key: _value(entry.value) for entry in self.graph.metadata_props}
        missing = {"name", "version", "labels", "metrics", "dataset"} - held.keys()
        if missing:
            raise UsageError(f"{self.file} says nothing of: {', '.join(sorted(missing))}.")
        return held

    @property
    def accuracy(self) -> float:
        """On the test split."""
        return float(self.metadata["metrics"]["accuracy"])

    @cached_property
    def tables(self) -> list[list[list[str]]]:
        """The tables of the card: rows of cells, the heading first; none without a card."""
        card = self.folder / "README.md"
        lines = card.read_text("utf-8").splitlines() if card.exists() else []
        found: list[list[list[str]]] = []
        for line, before in zip(lines, ["", *lines], strict=False):
            if not line.startswith("|"):
                continue
            if not before.startswith("|"):
                found.append([])
            if not line.startswith("| ---"):
                found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        return found

    def fact(self, name: str) -> str:
        """What the card says of that; empty where it says nothing."""
        return dict(row[:2] for table in self.tables for row in table).get(name, "")

    def of_classes(self, column: str) -> dict[str, str]:
        """A column of the card's table of classes, by label."""
        for heading, *rows in self.tables:
            if heading[0] == "Class" and column in heading:
                return {row[0]: row[heading.index(column)] for row in rows}
        return {}


def parse(text: str) -> tuple[str, int | None]:
    """``MODEL`` or ``MODEL/VERSION``, parted.

    Raises:
        UsageError: the version is no positive integer.
    """
    name, _, version = text.partition("/")
    if version and not (version.isdecimal() and int(version)):
        raise UsageError(f"A version is a positive integer, not {version!r}.")
    return name, int(version) if version else None


def find(text: str, models: Path) -> Version:
    """The version that ``MODEL``, its highest, ``MODEL/VERSION`` or the path of a folder names.

    Raises:
        UsageError: there is none; the message says what there is.
    """
    if (Path(text) / "model.onnx").is_file():
        return Version(Path(text))
    name, version = parse(text)
    folder = models / name
    known = sorted(int(entry.name) for entry in folder.glob("[1-9]*") if entry.name.isdigit())
    if not known:
        raise UsageError(f"Nothing is published in {folder}.")
    if version and version not in known:
        raise UsageError(f"No version {version} in {folder}. Known versions: {known}.")
    return Version(folder / str(version or known[-1]))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
