"""What was measured when servers took turns, and how it is told: tables and a plot.

Knows samples; knows nothing of servers. A sample with an error among its answers is void.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.clients.wrk import Closed
from bench.reporting.figures import median, number, ratios, table
from bench.throughput.contenders import OURS

LIMIT = "in process"
FORM = "32 images a request"


@dataclass(frozen=True)
class Sample:
    """One window of one server under one load."""

    model: str
    load: str  # a number of clients, FORM, a share of the capacity, or a batch in process
    server: str
    round: int
    seen: Closed
    shares: tuple[float, ...] = ()  # processor seconds of the workers, the busiest first
    images: int = 1  # of a request

    @property
    def speed(self) -> float:
        """Images a second; not a number where the window is void, or nothing was answered."""
        return math.nan if self.seen.errors else self.seen.per_second * self.images or math.nan

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return math.nan if self.seen.errors else self.seen.p99


@dataclass
class Results:
    """All samples of a run."""

    samples: list[Sample] = field(default_factory=list)

    def of(self, model: str, load: str, server: str) -> list[Sample]:
        """The samples of one cell, by round."""
        key = (model, load, server)
        found = [each for each in self.samples if (each.model, each.load, each.server) == key]
        return sorted(found, key=lambda each: each.round)

    def speeds(self, model: str, load: str, server: str) -> list[float]:
        """Images a second, by round."""
        return [each.speed for each in self.of(model, load, server)]

    def speed(self, model: str, load: str, server: str) -> float:
        """Their median."""
        return median(self.speeds(model, load, server))

    def loads(self, model: str) -> list[str]:
        """The numbers of clients."""
        return _unique(e.load for e in self.samples if e.model == model and e.load.isdigit())

    def servers(self, model: str) -> list[str]:
        """Convserve first."""
        found = _unique(each.server for each in self.samples if each.model == model)
        return sorted((name for name in found if name != LIMIT), key=lambda name: name != OURS)

    def capacity(self, model: str, server: str) -> float:
        """The most that it reached in a closed loop, as a median."""
        reached = [self.speed(model, load, server) for load in self.loads(model)]
        return max((speed for speed in reached if not math.isnan(speed)), default=math.nan)

    @property
    def void(self) -> list[Sample]:
        """Those with errors."""
        return [each for each in self.samples if each.seen.errors]

    def told(self) -> str:
        """Everything as Markdown, model by model."""
        return self._by_model(self._everything)

    def compared(self) -> str:
        """The closed loops alone."""
        return self._by_model(self._loops)

    def _by_model(self, parts: Callable[[str], list[tuple[str, str]]]) -> str:
        return "\n\n".join(
            "\n\n".join([f"### `{model}`", *(f"{said}\n\n{text}" for said, text in parts(model))])
            for model in _unique(each.model for each in self.samples)
        )

    def _loops(self, model: str) -> list[tuple[str, str]]:
        return [
            ("Images a second · p99 in milliseconds, one image a request:", self._closed(model)),
            ("Convserve ÷ the other, in images a second:", self._ratios(model)),
        ]

    def _everything(self, model: str) -> list[tuple[str, str]]:
        return [
            *self._loops(model),
            (
                "At a constant rate, that share of what each reached: p50 · p99 in milliseconds,"
                " from the time a request was due:",
                self._open(model),
            ),
            ("Against the in-process limit:", self._limit(model)),
            ("Processor time of Convserve's two workers:", self._shares(model)),
        ]

    def _closed(self, model: str) -> str:
        loads = self.loads(model)
        rows = [
            [server, *(self._cell(model, load, server) for load in loads)]
            for server in self.servers(model)
        ]
        return table(["Clients", *loads], rows)

    def _cell(self, model: str, load: str, server: str) -> str:
        samples = self.of(model, load, server)
        speed, p99 = median([e.speed for e in samples]), median([e.p99 for e in samples])
        return f"{number(speed)} · {number(p99)}"

    def _ratios(self, model: str) -> str:
        loads = self.loads(model)
        rows = [
            [server, *(self._ratio(model, load, server) for load in loads)]
            for server in self.servers(model)
            if server != OURS
        ]
        return table(["Clients", *loads], rows)

    def _ratio(self, model: str, load: str, server: str) -> str:
        return ratios(self.speeds(model, load, OURS), self.speeds(model, load, server))

    def _open(self, model: str) -> str:
        loads = _unique(e.load for e in self.samples if e.model == model and e.load.endswith("%"))
        rows = [
            [server, *(self._latency(model, load, server) for load in loads)]
            for server in self.servers(model)
        ]
        return table(["Load", *loads], rows)

    def _latency(self, model: str, load: str, server: str) -> str:
        samples = self.of(model, load, server)
        if any(each.seen.errors for each in samples):
            return "void"
        p50 = median([each.seen.p50 for each in samples])
        return f"{number(p50)} · {number(median([each.p99 for each in samples]))}"

    def _limit(self, model: str) -> str:
        batches = _unique(
            each.load for each in self.samples if each.model == model and each.server == LIMIT
        )
        if not batches:
            return table(["What", "Images a second"], [])
        best = max(batches, key=lambda batch: self.speed(model, batch, LIMIT))
        single = max(self.loads(model), key=lambda load: self.speed(model, load, OURS))
        rows = [
            [f"In process, {batch}", number(self.speed(model, batch, LIMIT)), ""]
            for batch in batches
        ]
        for load, against in ((single, batches[0]), (FORM, best)):
            share = ratios(self.speeds(model, load, OURS), self.speeds(model, against, LIMIT))
            what = load if load == FORM else f"one image a request, {load} clients"
            speed = number(self.speed(model, load, OURS))
            rows.append([f"Convserve, {what}", speed, f"{share} of {against}"])
        return table(["What", "Images a second", "Share"], rows)

    def _shares(self, model: str) -> str:
        loads = [*self.loads(model), FORM]
        cells = [_split(self.of(model, load, OURS)) for load in loads]
        return table(["Clients", *loads], [["busier : other", *cells]])


def _split(samples: Sequence[Sample]) -> str:
    """The median share of the busier worker, and of the other."""
    busier = median([e.shares[0] / sum(e.shares) for e in samples if sum(e.shares)])
    return "" if math.isnan(busier) else f"{busier:.0%} : {1 - busier:.0%}"


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def plot(results: Results, to: Path) -> None:
    """Images a second by clients, a panel for each model; the whiskers span the rounds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models = _unique(each.model for each in results.samples)
    figure, axes = plt.subplots(
        1, len(models), figsize=(5 * len(models), 4), squeeze=False, layout="constrained"
    )
    for axis, model in zip(axes[0], models, strict=True):
        loads, servers = results.loads(model), results.servers(model)
        for place, server in enumerate(servers):
            speeds = [results.speeds(model, load, server) for load in loads]
            middles = [median(each) for each in speeds]
            spread = [
                [middle - min(each) for middle, each in zip(middles, speeds, strict=True)],
                [max(each) - middle for middle, each in zip(middles, speeds, strict=True)],
            ]
            where = [index + 0.8 * (place / len(servers) - 0.4) for index in range(len(loads))]
            axis.bar(where, middles, 0.8 / len(servers), yerr=spread, capsize=2, label=server)
        limit = results.speed(model, "batch 1", LIMIT)
        axis.axhline(limit, color="grey", linestyle="--", label="in process, batch 1")
        axis.set_title(model)
        axis.set_xticks(range(len(loads)), loads)
        axis.set_xlabel("clients")
        axis.set_ylabel("images/s")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    figure.savefig(to, dpi=110)
    plt.close(figure)
