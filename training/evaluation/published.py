"""A published version, read back: its metadata, its graph and its card.

Knows the contract in ``models/README.md`` and ONNX files; knows nothing of Keras or of how a
version is made.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import onnx

from training.errors import UsageError

FILE = "model.onnx"


@dataclass(frozen=True)
class Version:
    """One folder ``models/<name>/<version>``."""

    folder: Path

    def __str__(self) -> str:
        return f"{self.metadata['name']} {self.metadata['version']}"

    @property
    def file(self) -> Path:
        """The float32 graph."""
        return self.folder / FILE

    @property
    def files(self) -> list[Path]:
        """The float32 graph and, if there is one, the int8 graph."""
        return sorted(self.folder.glob("model*.onnx"), reverse=True)

    def file_of(self, precision: str) -> Path:
        """Return the file of a precision, ``float32`` or ``int8``.

        Raises:
            UsageError: if the version has none.
        """
        file = self.file if precision == "float32" else self.folder / f"model.{precision}.onnx"
        if not file.is_file():
            raise UsageError(f"{self.folder} has no {file.name}. Expected: another --precision.")
        return file

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The file, parsed; raises ``UsageError`` if it is not an ONNX file."""
        try:
            return onnx.load(self.file)
        except Exception as exc:  # protobuf's classes differ between its implementations
            raise UsageError(f"{self.file} is not readable as ONNX: {exc}") from exc

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the file, its JSON parsed; raises ``UsageError`` if the name, version,
        labels, metrics or dataset are missing."""
        held = {entry.key: _value(entry.value) for entry in self.graph.metadata_props}
        missing = {"name", "version", "labels", "metrics", "dataset"} - held.keys()
        if missing:
            raise UsageError(f"{self.file} has no metadata for: {', '.join(sorted(missing))}.")
        return held

    @property
    def accuracy(self) -> float:
        """The accuracy on the test split, 0-1."""
        return float(self.metadata["metrics"]["accuracy"])

    @cached_property
    def tables(self) -> list[list[list[str]]]:
        """The tables of the card, as rows of cells, the heading first; empty without a card."""
        card = self.folder / "README.md"
        lines = card.read_text("utf-8").splitlines() if card.exists() else []
        return [
            [_cells(line) for line in rows if not line.startswith("| ---")]
            for is_table, rows in groupby(lines, key=lambda line: line.startswith("|"))
            if is_table
        ]

    def fact(self, name: str) -> str:
        """Return the value that the card has for a name, or an empty string."""
        return dict(row[:2] for table in self.tables for row in table).get(name, "")

    def of_classes(self, column: str) -> dict[str, str]:
        """Return a column of the card's table of classes, by label."""
        for heading, *rows in self.tables:
            if heading[0] == "Class" and column in heading:
                return {row[0]: row[heading.index(column)] for row in rows}
        return {}

    def metadata_of(self, file: Path) -> dict[str, Any]:
        """Return the metadata of a file of this version, its JSON parsed."""
        return {entry.key: _value(entry.value) for entry in onnx.load(file).metadata_props}


def parse(text: str) -> tuple[str, int | None]:
    """Split ``MODEL`` or ``MODEL/VERSION`` into name and version, None if not given; raise
    ``UsageError`` if the version is not a positive integer."""
    name, _, version = text.partition("/")
    if version and not (version.isdecimal() and int(version)):
        raise UsageError(f"A version is a positive integer, not {version!r}.")
    return name, int(version) if version else None


def find(text: str, models: Path) -> Version:
    """Find a version by ``MODEL``, which means its highest, by ``MODEL/VERSION`` or by its folder.
    Raise ``UsageError``, with the known versions, if it does not exist."""
    if (Path(text) / FILE).is_file():
        return Version(Path(text))
    name, version = parse(text)
    folder = models / name
    known = sorted(int(entry.name) for entry in folder.glob("[1-9]*") if entry.name.isdigit())
    if not known:
        raise UsageError(f"Nothing is published in {folder}.")
    if version and version not in known:
        raise UsageError(f"No version {version} in {folder}. Known versions: {known}.")
    return Version(folder / str(version or known[-1]))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
