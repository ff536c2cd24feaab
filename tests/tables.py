"""The generated parts of the documentation: tables and the first answer in README.md.

``python -m tests.tables`` writes them from the code and the published models; a test compares.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import onnx

from bench.reporting.figures import between
from serving import settings
from serving.errors import ServingError
from training.errors import Preempted, TrainingError

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
Error = TypeVar("Error", bound=BaseException)
ENDS = [(0, "Done."), (1, "Any other failure, of the program or of the machine.")]


def described(file: Path) -> dict[str, Any]:
    """Return the metadata of a published file."""
    model = onnx.load(file, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def megabytes(file: Path) -> str:
    """Return the size of a file in MB."""
    return f"{file.stat().st_size / 1e6:.1f} MB"


def newest(model: str) -> int:
    """Return the highest published version of a model."""
    return max(
        int(each.name) for each in (ROOT / "models" / model).iterdir() if each.name.isdigit()
    )


def models() -> str:
    """Return the table of every published version: its task, its accuracy, its recipe."""
    lines = [
        "| Model | Version | Task | Test accuracy | Accuracy, int8 | Recipe | Size | Size, int8 |",
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


def picture() -> str:
    """Return the path of the image that the first request sends."""
    return f"models/digits/{newest('digits')}/golden/7-7.png"


def first() -> str:
    """Return the first request and its answer, from the newest version of ``digits``."""
    from serving.app import create_app

    client = create_app(settings.Settings(models=ROOT / "models")).test_client()
    sent = client.post(
        "/predict/digits", data=(ROOT / picture()).read_bytes(), content_type="image/png"
    )
    answer = json.loads(sent.data)
    (prediction,) = answer["predictions"]
    classes = [
        f'{{"label": "{each["label"]}", "probability": {each["probability"]:.6f}}}'
        for each in prediction["top"]
    ]
    top = f",\n{26 * ' '}".join(classes)
    return f"""```console
$ curl -s --data-binary @{picture()} -H 'Content-Type: image/png' localhost:8000/predict/digits
```

answers (on one line)

```json
{{"model": "digits", "version": {answer["version"]},
 "predictions": [{{"label": "{prediction["label"]}", "probability": {prediction["probability"]:.6f},
                  "top": [{top}],
                  "id": "A…"}}]}}
```"""


def tree(root: type[Error]) -> Iterator[type[Error]]:
    """Yield every error below ``root``, in the order of the source."""
    for child in root.__subclasses__():
        yield child
        yield from tree(child)


def error_codes() -> str:
    """Return the table of the errors that a client can receive."""
    rows = ["| Status | Code | Meaning |", "| --- | --- | --- |"]
    rows += [
        f"| {error.status} | `{error.code}` | {error.__doc__} |"
        for error in sorted(tree(ServingError), key=lambda error: error.status)
    ]
    return "\n".join(rows)


def exit_codes() -> str:
    """Return the table of the exit codes of ``python -m training``."""
    rows = [(each.exit_code, each.__doc__) for each in tree(TrainingError)]
    stops: tuple[type[Preempted], ...] = (Preempted, *tree(Preempted))
    rows += [(each.exit_code, each.__doc__) for each in stops]
    return "\n".join(
        [
            *("| Exit code | Meaning |", "| ---: | --- |"),
            *(f"| {code} | {meaning} |" for code, meaning in sorted(ENDS + rows)),
        ]
    )


PAGES: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    README: {"models": models},
    ROOT / "docs/reference/settings.md": {"settings": settings.table},
    ROOT / "docs/reference/errors.md": {"errors": error_codes},
    ROOT / "docs/reference/commands.md": {"exit-codes": exit_codes},
}


def written(page: Path) -> str:
    """Return the text of a page with its tables generated again."""
    text = page.read_text("utf-8")
    for name, table in PAGES[page].items():
        text = between(text, name, table())
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page), "utf-8")
    README.write_text(between(README.read_text("utf-8"), "first", first()), "utf-8")
