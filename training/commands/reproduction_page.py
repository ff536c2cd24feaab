"""What the reproductions of the tutorials reached, and the page that compares it with what was
published.

A reproduction leaves ``result.json`` in its run folder, ``reproduce/<recipe>-seed<n>`` under the
runs, and the same as ``<recipe>-seed<n>.json`` in a folder beside the page, named as it. The page
is made from those files and from the recipes' headers alone: no figure of ours on it is typed.
Knows nothing of Keras or of data.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from training.errors import UsageError
from training.fitting import checkpoints as runs
from training.modelling import recipe as pages
from training.modelling.recipe import Recipe

FILE = "result.json"  # in the run folder


@dataclass(frozen=True)
class Result:
    """One reproduction: what ran, how long it took, what it reached."""

    recipe: str
    page: str  # the recipe's fingerprint
    seed: int
    precision: str
    cores: int
    weights: int
    images: int  # that it was trained on
    epochs: int
    seconds: float  # of training
    metrics: dict[str, float]
    device: str = "cpu"  # or gpu


def tutorials() -> list[Recipe]:
    """The recipes whose header tells what was published."""
    return [entry for entry in map(pages.find, pages.names()) if entry.header("Published")]


def folder(root: Path, recipe: Recipe, seed: int) -> Path:
    """Where that reproduction runs."""
    return root / "reproduce" / f"{recipe.name}-seed{seed}"


def read(file: Path, recipe: Recipe, *, precision: str = "auto") -> Result | None:
    """What a finished run reached; None if it is not finished, or was another.

    Raises:
        UsageError: the file is damaged.
    """
    if not file.exists():
        return None
    try:
        result = Result(**json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError) as exc:
        raise UsageError(f"{file} is no result: {exc}. Remove it.") from exc
    alike = result.page == recipe.fingerprint() and precision in ("auto", result.precision)
    return result if alike else None


def write(file: Path, result: Result) -> None:
    """Note what a run reached.

    Raises:
        RunFailed: it cannot be written.
    """
    runs.write(file, json.dumps(asdict(result), indent=1).encode() + b"\n")


def note(page: Path, result: Result) -> None:
    """Note it for the page, which is written anew.

    Raises:
        RunFailed: it cannot be written.
    """
    write(page.with_suffix("") / f"{result.recipe}-seed{result.seed}.json", result)
    write_page(page)


def write_page(page: Path) -> None:
    """Write the comparison from what was noted for it of today's recipes.

    Raises:
        RunFailed: the page cannot be written.
    """
    found = {entry.name: _noted(page.with_suffix(""), entry) for entry in tutorials()}
    runs.write(page, comparison(found).encode())


def _noted(folder: Path, recipe: Recipe) -> list[Result]:
    files = folder.glob(f"{recipe.name}-seed*.json")
    found = [result for file in files if (result := read(file, recipe))]
    return sorted(found, key=lambda result: result.seed)


INTRODUCTION = """\
# The tutorials, reproduced

Made by `python -m training reproduce`; edited by nobody. Each row is a network of the tutorials
that this system grew from, trained as it was published, beside what was published. "±" is the
standard deviation over the seeds.

- MNIST and CIFAR-10: trained on all published training images, none held out, so the last epoch
  counts. The percentage and the loss (cross-entropy) are of the 10,000 test images, read once.
- Pets: one score between 0 (cat) and 1 (dog), trained by mean squared error on 4,096 images of our
  training split, and scored as the tutorial did, on 1,024 images of our validation split: squared
  error, Pearson's correlation of score and label, and the best accuracy of the ten thresholds 0.0,
  0.1 … 0.9. That threshold is picked on the images that it is scored on, which flatters; the last
  percentage is that of our whole test split, unseen, at the same threshold. These networks give no
  probability for each class, so they are never published.
"""
COLUMNS = ("Recipe", "Published", "Ours", "Seeds", "Training", "Weights", "Difference")


def comparison(found: Mapping[str, list[Result]]) -> str:
    """The page: a row for every recipe, empty where it has not run."""
    heading = [COLUMNS, ["---"] * len(COLUMNS)]
    rows = [_row(pages.find(name), results) for name, results in found.items()]
    lines = [f"| {' | '.join(cells)} |" for cells in [*heading, *rows]]
    return "\n".join([INTRODUCTION, *lines, ""])


def _row(recipe: Recipe, results: Sequence[Result]) -> Iterator[str]:
    yield f"[`{recipe.name}`](../training/recipes/{recipe.name}.py)"
    yield recipe.header("Published")
    if results:
        yield told(results)
        yield ", ".join(str(result.seed) for result in results)
        yield _training(results)
        yield f"{results[0].weights:,}"
    else:
        yield from ["–"] * 4
    yield recipe.header("Difference")


def _training(results: Sequence[Result]) -> str:
    first = results[0]
    minutes = statistics.fmean(result.seconds for result in results) / 60
    cores = f"{first.cores} processor core{'s' * (first.cores > 1)}"
    machine = cores if first.device == "cpu" else "a GPU"
    return (
        f"{first.epochs} epochs of {first.images:,}, {minutes:.1f} minutes, {first.precision} on "
        f"{machine}"
    )


def told(results: Sequence[Result]) -> str:
    """What one or several runs of a recipe reached, in words."""

    def spread(name: str, form: str) -> str:
        values = [result.metrics[name] for result in results]
        told = format(statistics.fmean(values), form)
        if len(values) > 1:
            told += f" ± {format(statistics.stdev(values), form)}"
        return told.replace("%", "") + " %" if form.endswith("%") else told

    if "test_loss" in results[0].metrics:
        return f"{spread('test_accuracy', '.2%')}, loss {spread('test_loss', '.4f')}"
    return (
        f"{spread('accuracy', '.1%')}, correlation {spread('correlation', '.3f')}, "
        f"squared error {spread('mean_squared_error', '.3f')}; "
        f"{spread('test_accuracy', '.1%')} of the test images"
    )
