"""What was measured when servers took turns, as tables and a plot.

Knows windows of load; knows nothing of servers. A window with an error among its answers is void.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.clients.wrk import Closed
from bench.reporting.figures import median, number, ratios, table
from bench.reporting.pictures import picture
from bench.throughput.contenders import OURS

LIMIT = "in process"
FORM = "32 images a request"


class Results:
    """The windows of a run, one of each round, by model, load and server.

    A load is a number of clients, FORM, a share of the capacity, or a batch in process. The speed
    of a window is in images per second.
    """

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str, str], list[Closed]] = {}
        self.busier: dict[tuple[str, str], list[float]] = {}  # share of Convserve's busier worker

    def add(self, model: str, load: str, server: str, seen: Closed) -> None:
        """Add the window of the next round to its cell."""
        self.cells.setdefault((model, load, server), []).append(seen)

    def of(self, model: str, load: str, server: str) -> list[Closed]:
        """Return the windows of one cell, by round."""
        return self.cells.get((model, load, server), [])

    def speeds(self, model: str, load: str, server: str) -> list[float]:
        """Return the images per second of one cell, by round."""
        return [each.speed for each in self.of(model, load, server)]

    def speed(self, model: str, load: str, server: str) -> float:
        """Return the median images per second of one cell."""
        return median(self.speeds(model, load, server))

    def models(self) -> list[str]:
        """Return the names of the models."""
        return list(dict.fromkeys(model for model, _, _ in self.cells))

    def loads(self, model: str, kind: Callable[[str], bool] = str.isdigit) -> list[str]:
        """Return the loads of a kind, by default the numbers of clients."""
        found = (load for name, load, _ in self.cells if name == model and kind(load))
        return list(dict.fromkeys(found))

    def servers(self, model: str) -> list[str]:
        """Return the names of the servers, Convserve first."""
        found = {server: 0 for name, _, server in self.cells if name == model and server != LIMIT}
        return sorted(found, key=lambda name: name != OURS)

    def capacity(self, model: str, server: str) -> float:
        """Return the highest median that a server reached in a closed loop."""
        reached = [self.speed(model, load, server) for load in self.loads(model)]
        return max((speed for speed in reached if not math.isnan(speed)), default=math.nan)

    def void(self) -> list[str]:
        """Describe each window with errors."""
        return [
            f"{', '.join(cell)}: {seen.errors} errors"
            for cell, windows in self.cells.items()
            for seen in windows
            if seen.errors
        ]

    def markdown(self, *, closed_loops_only: bool = False) -> str:
        """Return the tables, model by model."""
        parts = []
        for model in self.models():
            parts += [f"### `{model}`", *self._closed_loops(model)]
            if not closed_loops_only:
                parts += self._rest(model)
        return "\n\n".join(parts)

    def _closed_loops(self, model: str) -> list[str]:
        clients = ["Clients", *self.loads(model)]
        return [
            "Images a second · p99 in milliseconds, one image a request:",
            self._grid(model, clients, self._speed_and_p99),
            "Convserve ÷ the other, in images a second:",
            self._grid(model, clients, self._ratio, but=OURS),
        ]

    def _rest(self, model: str) -> list[str]:
        open_loads = self.loads(model, lambda load: load.endswith("%"))
        return [
            "At a constant rate, that share of what each reached: p50 · p99 in milliseconds,"
            " from the time a request was due:",
            self._grid(model, ["Load", *open_loads], self._latency),
            "Against the in-process limit:",
            self._limit(model),
            "Processor time of Convserve's two workers:",
            self._shares(model),
        ]

    def _grid(
        self, model: str, head: list[str], cell: Callable[[str, str, str], str], but: str = ""
    ) -> str:
        """Return a table of the servers, with a cell for each load in ``head``."""
        rows = [
            [server, *(cell(model, load, server) for load in head[1:])]
            for server in self.servers(model)
            if server != but
        ]
        return table(head, rows)

    def _p99(self, model: str, load: str, server: str) -> str:
        cell = self.of(model, load, server)
        return number(median([math.nan if each.errors else each.p99 for each in cell]))

    def _speed_and_p99(self, model: str, load: str, server: str) -> str:
        return f"{number(self.speed(model, load, server))} · {self._p99(model, load, server)}"

    def _ratio(self, model: str, load: str, server: str) -> str:
        return ratios(self.speeds(model, load, OURS), self.speeds(model, load, server))

    def _latency(self, model: str, load: str, server: str) -> str:
        cell = self.of(model, load, server)
        if any(each.errors for each in cell):
            return "void"
        return f"{number(median([each.p50 for each in cell]))} · {self._p99(model, load, server)}"

    def _limit(self, model: str) -> str:
        head = ["What", "Images a second", "Share"]
        batches = self.loads(model, lambda load: load.startswith("batch"))
        if not batches:
            return table(head, [])
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
        return table(head, rows)

    def _shares(self, model: str) -> str:
        loads = [*self.loads(model), FORM]
        busier = [median(self.busier.get((model, load), [])) for load in loads]
        cells = ["" if math.isnan(each) else f"{each:.0%} : {1 - each:.0%}" for each in busier]
        return table(["Clients", *loads], [["busier : other", *cells]])


def plot(results: Results, to: Path) -> None:
    """Draw images per second by clients, a panel for each model; whiskers span the rounds."""
    models = results.models()
    size = (5 * len(models), 4)
    with picture(to, 1, len(models), figsize=size, squeeze=False) as (figure, axes):
        for axis, model in zip(axes[0], models, strict=True):
            _panel(axis, model, results)
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))


def _panel(axis: Any, model: str, results: Results) -> None:
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
