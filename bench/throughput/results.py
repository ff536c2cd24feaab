"""What was measured of one model when servers took turns, as tables and a plot.

Knows windows of load; knows nothing of servers. A window with an error among its answers is void.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.clients.wrk import Closed
from bench.reporting.figures import median, number, ratios, table
from bench.reporting.pictures import picture
from bench.throughput.contenders import OURS

LIMIT = "in process"
FORM = "32 images a request"


class Results:
    """The windows of one model, one of each round, by load and server.

    A load is a number of clients, FORM, a share of the capacity, or a batch in process. The speed
    of a window is in images per second.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.cells = defaultdict[tuple[str, str], list[Closed]](list)
        self.busier = defaultdict[str, list[float]](list)  # share of Convserve's busier worker

    def speeds(self, load: str, server: str) -> list[float]:
        """Return the images per second of one cell, by round."""
        return [each.speed for each in self.cells.get((load, server), [])]

    def speed(self, load: str, server: str) -> float:
        """Return the median images per second of one cell."""
        return median(self.speeds(load, server))

    def loads(self, kind: Callable[[str], bool] = str.isdigit) -> list[str]:
        """Return the loads of a kind, by default the numbers of clients."""
        return list(dict.fromkeys(load for load, _ in self.cells if kind(load)))

    def servers(self) -> list[str]:
        """Return the names of the servers, Convserve first."""
        found = dict.fromkeys(server for _, server in self.cells if server != LIMIT)
        return sorted(found, key=lambda name: name != OURS)

    def capacity(self, server: str) -> float:
        """Return the highest median that a server reached in a closed loop."""
        reached = [self.speed(load, server) for load in self.loads()]
        return max((speed for speed in reached if not math.isnan(speed)), default=math.nan)

    def void(self) -> list[str]:
        """Describe each window with errors."""
        return [
            f"{self.model}, {', '.join(cell)}: {seen.errors} errors"
            for cell, windows in self.cells.items()
            for seen in windows
            if seen.errors
        ]

    def markdown(self, *, closed_loops_only: bool = False) -> str:
        """Return the tables below a heading."""
        parts = [
            f"### `{self.model}`",
            "Images a second · p99 in milliseconds, one image a request:",
            self._grid("Clients", self.loads(), self._speed_and_p99),
            "Convserve ÷ the other, in images a second:",
            self._grid("Clients", self.loads(), self._ratio, but=OURS),
        ]
        if not closed_loops_only:
            parts += [
                "At a constant rate, that share of what each reached: p50 · p99 in milliseconds,"
                " from the time a request was due:",
                self._grid("Load", self.loads(lambda load: load.endswith("%")), self._latency),
                "Against the in-process limit:",
                table(["What", "Images a second", "Share"], self._limit()),
                "Processor time of Convserve's two workers:",
                self._shares(),
            ]
        return "\n\n".join(parts)

    def _grid(
        self, head: str, loads: Sequence[str], cell: Callable[[str, str], str], but: str = ""
    ) -> str:
        """Return a table of the servers, with a cell for each load."""
        rows = [
            [server, *(cell(load, server) for load in loads)]
            for server in self.servers()
            if server != but
        ]
        return table([head, *loads], rows)

    def _middle(self, figure: str, load: str, server: str) -> str:
        cell = self.cells.get((load, server), [])
        return number(median([math.nan if e.errors else getattr(e, figure) for e in cell]))

    def _speed_and_p99(self, load: str, server: str) -> str:
        return f"{self._middle('speed', load, server)} · {self._middle('p99', load, server)}"

    def _ratio(self, load: str, server: str) -> str:
        return ratios(self.speeds(load, OURS), self.speeds(load, server))

    def _latency(self, load: str, server: str) -> str:
        if any(each.errors for each in self.cells.get((load, server), [])):
            return "void"
        return f"{self._middle('p50', load, server)} · {self._middle('p99', load, server)}"

    def _limit(self) -> list[list[str]]:
        batches = self.loads(lambda load: load.startswith("batch"))
        if not batches:
            return []
        best = max(batches, key=lambda batch: self.speed(batch, LIMIT))
        single = max(self.loads(), key=lambda load: self.speed(load, OURS))
        rows = [[f"In process, {batch}", number(self.speed(batch, LIMIT)), ""] for batch in batches]
        for load, against in ((single, batches[0]), (FORM, best)):
            share = ratios(self.speeds(load, OURS), self.speeds(against, LIMIT))
            what = load if load == FORM else f"one image a request, {load} clients"
            speed = number(self.speed(load, OURS))
            rows.append([f"Convserve, {what}", speed, f"{share} of {against}"])
        return rows

    def _shares(self) -> str:
        loads = [*self.loads(), FORM]
        busier = [median(self.busier.get(load, [])) for load in loads]
        cells = ["" if math.isnan(each) else f"{each:.0%} : {1 - each:.0%}" for each in busier]
        return table(["Clients", *loads], [["busier : other", *cells]])

    def draw(self, axis: Any) -> None:
        """Draw images per second by clients; whiskers span the rounds."""
        loads, servers = self.loads(), self.servers()
        for place, server in enumerate(servers):
            speeds = [self.speeds(load, server) for load in loads]
            middles = [median(each) for each in speeds]
            pairs = list(zip(middles, speeds, strict=True))
            whiskers = [[m - min(each) for m, each in pairs], [max(each) - m for m, each in pairs]]
            where = [index + 0.8 * (place / len(servers) - 0.4) for index in range(len(loads))]
            width = 0.8 / len(servers)
            axis.bar(where, middles, width, yerr=whiskers, capsize=2, label=server)
        limit = self.speed("batch 1", LIMIT)
        axis.axhline(limit, color="grey", linestyle="--", label="in process, batch 1")
        axis.set_title(self.model)
        axis.set_xticks(range(len(loads)), loads)
        axis.set_xlabel("clients")
        axis.set_ylabel("images/s")


def plot(results: Sequence[Results], to: Path) -> None:
    """Draw a panel for each model."""
    size = (5 * len(results), 4)
    with picture(to, 1, len(results), figsize=size, squeeze=False) as (figure, axes):
        for axis, each in zip(axes[0], results, strict=True):
            each.draw(axis)
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names))
