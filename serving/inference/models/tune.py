"""``python -m serving tune``: measure what other settings of onnxruntime would gain on this machine.

Each setting is compared with the current one in alternation, so that other load on the machine
disturbs both. A worker is a thread here, as inference runs outside Python's lock.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path, PurePosixPath
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from serving.cpus import cores
from serving.errors import ModelError
from serving.inference.models.model import FILES, Model, load_precisions
from serving.inference.models.published import scan
from serving.inference.models.session import LEVELS, session
from serving.settings import PREFIX, Settings

ROUNDS = 5
BATCHES = (1, 8)  # images at once with which settings are compared
SIZES = (1, 2, 4, 8, 16)  # images at once that are reported
LEAST = 1.05  # times: less is not a gain, however steady


@dataclass(frozen=True)
class Offline:
    """The seconds to load a graph, now and optimised before, and the gain in speed."""

    model: str
    now: float
    then: float
    gain: float


@dataclass(frozen=True)
class Compared:
    """The images a second of one model in each round, now and with a setting."""

    model: str
    setting: str
    batch: int
    now: tuple[float, ...]
    then: tuple[float, ...]

    @property
    def gain(self) -> float:
        """The ratio of the medians: how many times faster the setting is."""
        return median(self.then) / median(self.now)

    @property
    def verdict(self) -> int:
        """1 if faster, -1 if slower, 0 if the rounds overlap or the difference is small."""
        if self.gain >= LEAST and min(self.then) > max(self.now):
            return 1
        if self.gain <= 1 / LEAST and max(self.then) < min(self.now):
            return -1
        return 0


def tune(settings: Settings, *, seconds: float) -> str:
    """Measure for about ``seconds`` and return the report; raise ModelError if nothing is published,
    or a version is broken."""
    folders = _highest(settings.models)
    others = _others(settings)
    seconds /= len(folders) * ROUNDS * (len(others) * len(BATCHES) * 2 + len(SIZES) + 2)
    compared: list[Compared] = []
    offline: list[Offline] = []
    sizes: dict[str, list[float]] = {}
    for folder in folders:
        models = _loaded(folder, settings)
        name = str(models[0])
        sizes[name] = [median(_rates([models], size, seconds)[0]) for size in SIZES]
        offline.append(_offline(folder, models[0], settings, seconds))
        for setting, other in others.items():
            if other.precision != settings.precision and not (folder / FILES["int8"]).exists():
                continue  # there is one precision only
            pair = [models, _loaded(folder, other)]
            for batch in BATCHES:
                rounds = _rates(pair, batch, seconds)
                compared.append(Compared(name, setting, batch, *rounds))
    return report(compared, sizes, offline)


def _highest(folder: Path) -> list[Path]:
    """Return the folder of the highest version of each model."""
    published = scan(folder)
    if published.errors:
        raise ModelError(" ".join(published.errors.values()))
    found = sorted(map(PurePosixPath, published.versions), key=lambda path: int(path.name))
    return [folder / path for path in {path.parent: path for path in found}.values()]


def _others(settings: Settings) -> dict[str, Settings]:
    """Return all settings that differ from the current ones in one value, by that value."""
    values: dict[str, Iterable[Any]] = {
        "precision": FILES,
        "intra_threads": (1 << n for n in range(cores().bit_length())),
        "arena": ("on", "off"),
        "optimisation": LEVELS,
    }
    return {
        f"{PREFIX}{name.upper()}={value}": replace(settings, **{name: value})
        for name, each in values.items()
        for value in each
        if value != getattr(settings, name)
    }


def _loaded(folder: Path, settings: Settings) -> list[Model]:
    """Return the version in ``folder`` as each worker would load it."""
    return [load_precisions(folder, settings)[0] for _ in range(settings.processes)]


def _offline(folder: Path, model: Model, settings: Settings, seconds: float) -> Offline:
    """Measure what an already optimised graph would save."""
    file = folder / FILES[model.precision]
    with TemporaryDirectory() as temporary:
        written = Path(temporary, file.name)
        session(file, settings, written=written)
        optimised = Model(
            written, name=model.name, version=model.version, settings=settings, optimised=True
        )
        now, then = map(median, _rates([[model], [optimised]], 1, seconds))
        times = _load_seconds(file, settings), _load_seconds(written, settings, optimised=True)
        return Offline(str(model), *times, gain=then / now)


def _load_seconds(file: Path, settings: Settings, *, optimised: bool = False) -> float:
    """Return the least time that loading a graph takes."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        session(file, settings, optimised=optimised)
        times.append(time.perf_counter() - started)
    return min(times)


def _rates(ways: Sequence[Sequence[Model]], batch: int, seconds: float) -> list[tuple[float, ...]]:
    """Return, for each way, the images a second in every round; the ways alternate."""
    rounds = [[_rate(models, batch, seconds) for models in ways] for _ in range(ROUNDS)]
    return list(zip(*rounds, strict=True))


def _rate(models: Sequence[Model], batch: int, seconds: float) -> float:
    """Return the images a second of all workers together."""
    spec = models[0].spec
    images = np.zeros((batch, spec.height, spec.width, spec.channels), np.uint8)
    started = time.perf_counter()

    def run(model: Model) -> int:
        count = 0
        while count == 0 or time.perf_counter() < started + seconds:
            model.infer(images)
            count += batch
        return count

    with ThreadPoolExecutor(len(models)) as threads:
        return sum(threads.map(run, models)) / (time.perf_counter() - started)


def report(
    compared: Sequence[Compared], sizes: dict[str, list[float]], offline: Sequence[Offline]
) -> str:
    """Return all tables, and the settings that the first of them recommends."""
    verdicts = ("", " faster", " slower")
    comparisons = [
        f"{each.model} | `{each.setting}` | {each.batch} | {median(each.now):,.0f}"
        f" | {median(each.then):,.0f} | {each.gain:.2f}{verdicts[each.verdict]}"
        for each in compared
    ]
    rates = [
        f"{model} | {' | '.join(f'{rate:,.0f}' for rate in each)}" for model, each in sizes.items()
    ]
    graphs = [
        f"{each.model} | {each.now * 1000:.1f} | {each.then * 1000:.1f} | {each.gain:.2f}"
        for each in offline
    ]
    lines = [
        *_table("Model | Setting | Images at once | Now, images/s | With it | Times", comparisons),
        *_table(f"Model, images/s by images at once | {' | '.join(map(str, SIZES))}", rates),
        *_table("Graph | Loaded in, ms | Optimised before, ms | Then faster, times", graphs),
    ]
    lines += advice(compared) or ["No setting is faster than the current one beyond the noise."]
    return "\n".join(lines)


def _table(head: str, rows: Iterable[str]) -> list[str]:
    rule = " | ".join(["---", *(head.count("|") * ["---:"])])
    return [*(f"| {row} |" for row in (head, rule, *rows)), ""]


def advice(compared: Iterable[Compared]) -> list[str]:
    """Return the settings that make a model faster and none slower; the best value of each."""
    by_setting: dict[str, list[Compared]] = {}
    for each in compared:
        by_setting.setdefault(each.setting, []).append(each)
    best: dict[str, tuple[float, str]] = {}
    for setting, results in by_setting.items():
        verdicts = [each.verdict for each in results]
        if max(verdicts) > 0 <= min(verdicts):
            name = setting.partition("=")[0]
            gain = prod(each.gain for each in results) ** (1 / len(results))
            best[name] = max(best.get(name, (0.0, "")), (gain, setting))
    return [setting for _, setting in best.values()]
