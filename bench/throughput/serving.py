"""How fast the service answers, beside what a user would write instead: `make bench`.

All contenders serve the same file of each model and take turns, in rounds, the order rotated:
closed loops with one image a request, a form of 32 images, and an open loop at half and at four
fifths of what each reached. Every round measures the in-process limit too. With ``--decision``,
Convserve takes turns with its own Flask application alone, in the closed loops.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from bench.clients import bodies
from bench.clients.wrk import Bodies, Closed, closed, opened
from bench.reporting import promises
from bench.reporting.figures import rotated
from bench.rig.environment import require
from bench.rig.service import WORKERS, Server, newest
from bench.throughput import results
from bench.throughput.contenders import CONTENDERS, DECISION, OURS, Contender, Subject
from bench.throughput.limit import BATCHES, limit
from bench.throughput.results import FORM, LIMIT, Results

FORM_IMAGES = 32
FORM_CLIENTS = 8  # of 32 images each: as many as fit into the queues of two workers
OPEN_CLIENTS = 64
OPEN_SHARES = (0.5, 0.8)
WARM_SECONDS = 2.0
SECTIONS = ("serving", "int8", "shipped")
PAUSE = 1.0  # seconds before a window, in which the queues of the previous one drain


@dataclass
class Comparison:
    """The started contenders on one model, and the samples so far."""

    subject: Subject
    options: argparse.Namespace
    contenders: Mapping[str, Contender]
    results: Results
    servers: dict[str, Server] = field(default_factory=dict)

    def run(self) -> None:
        """Start all contenders, warm them up, and let them take turns."""
        with ExitStack() as running:
            for name, contender in self.contenders.items():
                self.servers[name] = running.enter_context(contender.start(self.subject))
            for name in self.contenders:
                closed(self._url(name), self._single(name), clients=8, seconds=WARM_SECONDS)
            for number in range(self.options.rounds):
                self._closed_round(number)
            if not self.options.decision:
                for number in range(self.options.rounds):
                    self._open_round(number)

    def _closed_round(self, number: int) -> None:
        pictures, seconds = self.subject.pictures, self.options.seconds
        for batch in BATCHES:
            show(f"round {number + 1}: in process, batch {batch}")
            speed = limit(self.subject.model, pictures, batch=batch, seconds=seconds)
            self.results.cells[f"batch {batch}", LIMIT].append(Closed(speed, 0, 0))
        for clients in self.options.clients:
            for name in rotated(list(self.contenders), number):
                self._measure(f"{clients}", name, number, self._single(name), clients)
        several = bodies.forms(pictures, FORM_IMAGES)
        self._measure(FORM, OURS, number, several, FORM_CLIENTS)

    def _measure(self, load: str, name: str, number: int, sent: Bodies, clients: int) -> None:
        show(f"round {number + 1}: {name}, {load}")
        time.sleep(PAUSE)
        before = self.servers[name].cpu()
        seen = closed(self._url(name), sent, clients=clients, seconds=self.options.seconds)
        after = self.servers[name].cpu()
        if name == OURS:
            spent = sorted((after[pid] - before.get(pid, 0.0) for pid in after), reverse=True)
            self.results.busier[load].append(spent[0] / (sum(spent[:WORKERS], 0.0) or math.nan))
        whole = replace(seen, per_second=seen.per_second * sent.images)
        self.results.cells[load, name].append(whole)

    def _open_round(self, number: int) -> None:
        seconds = self.options.seconds
        for share, name in product(OPEN_SHARES, rotated(list(self.contenders), number)):
            show(f"round {number + 1}: {name}, {share:.0%} of its capacity")
            rate = share * self.results.capacity(name)
            if math.isnan(rate):
                continue
            time.sleep(PAUSE)
            sent = self._single(name)
            seen = opened(self._url(name), sent, rate=rate, seconds=seconds, clients=OPEN_CLIENTS)
            whole = Closed(seen.rate(), seen.at(0.5), seen.at(0.99), seen.errors)
            self.results.cells[f"{share:.0%}", name].append(whole)

    def _single(self, name: str) -> Bodies:
        return self.contenders[name].single(self.subject.pictures)

    def _url(self, name: str) -> str:
        return self.servers[name].url(f"/predict/{self.subject.name}")


def show(progress: str) -> None:
    """Print progress to stderr."""
    print(progress, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = promises.parser(
        "throughput.serving",
        __doc__,
        seconds=(4.0, "length of one window"),
        rounds=(3, "rounds in which the servers take turns"),
        models=(bodies.NAMES, "models to serve"),
        clients=([1, 8, 32, 64], "numbers of clients"),
        file=("model.onnx", "file of a version that all run; or see --set PRECISION=…"),
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of one second with 8 clients")
    add("--decision", action="store_true", help="see above")
    add("--photos", type=Path, help="folder of *.jpg to send to cats_vs_dogs instead of ours")
    settings = "settings of Convserve, without CONVSERVE_"
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help=settings)
    add("--section", default="serving", choices=SECTIONS, help="section of the page")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.rounds, options.clients = 1, 1, [8]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the tables; return 1 if an answer was not a 2xx."""
    options = parse(arguments)
    require(programs=["wrk"], packages=["fastapi", "uvicorn", "uvloop", "flask", "matplotlib"])
    found = [Results(name) for name in options.models]
    contenders = DECISION if options.decision else CONTENDERS
    precision = "int8" if "int8" in options.file else "float32"
    settings = dict(each.lower().split("=", 1) for each in options.set)
    for each in found:
        pictures = bodies.files(each.model, options.photos)
        more = {"precision": precision, **settings}
        subject = Subject(newest(each.model), pictures, file=options.file, settings=more)
        Comparison(subject, options, contenders, each).run()
    section = "decision" if options.decision else options.section
    tables = "\n\n".join(each.markdown(closed_loops_only=options.decision) for each in found)
    promises.put(options.page, section, f"{conditions(options)}\n\n{tables}")
    if section == "serving":
        results.plot(found, options.page.with_suffix(".png"))
    void = [line for each in found for line in each.void()]
    for line in void:
        show(f"Void: {line}.")
    return 1 if void else 0


def conditions(options: argparse.Namespace) -> str:
    """Describe in a sentence how the figures were measured."""
    versions = ", ".join(f"`{name}` {newest(name).name}" for name in options.models)
    return (
        f"{versions}, of each `{options.file}`; {os.cpu_count()} cores, load generator included;"
        f" medians of {options.rounds} interleaved rounds of {options.seconds:g} seconds; in"
        " brackets the least and the most of the rounds."
        + (f" Convserve with {', '.join(options.set)}." if options.set else "")
    )


if __name__ == "__main__":
    sys.exit(main())
