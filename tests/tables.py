"""The tables and the first answer in README.md, made from the code and the published models.

``python -m tests.tables`` writes them; a test compares.
"""

import json
from pathlib import Path
from typing import Any

import onnx

from bench.reporting.figures import between
from serving import errors, settings

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def described(file: Path) -> dict[str, Any]:
    """The metadata of a published file."""
    model = onnx.load(file, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def megabytes(file: Path) -> str:
    """The size of a file."""
    return f"{file.stat().st_size / 1e6:.1f} MB"


def models() -> str:
    """Every published version: what it is, what it reached, what made it."""
    lines = [
        "| Model | Version | What it tells | Test accuracy | in int8 | Recipe | File | in int8 |",
        "| --- | ---: | --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for file in sorted((ROOT / "models").glob("*/*/model.onnx")):
        held, card = described(file), file.parent.relative_to(ROOT).as_posix()
        metrics, int8 = json.loads(held["metrics"]), file.with_name("model.int8.onnx")
        accuracy, size = "–", "–"
        if int8.exists():
            accuracy = f"{json.loads(described(int8)['metrics'])['accuracy']:.2%}"
            size = megabytes(int8)
        lines.append(
            f"| `{held['name']}` | [{held['version']}]({card}/README.md) | {held['title']} "
            f"| {metrics['accuracy']:.2%} of {metrics['images']:,} | {accuracy} "
            f"| `{held['recipe']}` | {megabytes(file)} | {size} |"
        )
    return "\n".join(lines)


TABLES = {"models": models, "settings": settings.table, "errors": errors.table}


def written(text: str) -> str:
    """The text with every table between its marks made anew."""
    for name, table in TABLES.items():
        text = between(text, name, table())
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text("utf-8")), "utf-8")
