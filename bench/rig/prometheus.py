"""A Prometheus that scrapes replicas under our rules, and what it recorded.

Knows Prometheus, its configuration and its HTTP API; knows no series of ours.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.rig.environment import program
from bench.rig.service import Server, free_port, started, until

JOB = "convserve"
PATIENCE = 60.0  # seconds to wait for a scrape
EVALUATE = 2.0  # seconds between two evaluations of the rules
UNITS = {"m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(?P<before>\[|\bfor: )(?P<count>\d+)(?P<unit>[mhd])\b")


@dataclass(frozen=True)
class Series:
    """Samples with the same labels, the oldest first: seconds since 1970, and the value."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    server: Server
    instances: Sequence[str]

    def instant(self, expression: str) -> list[Series]:
        """Return the value of an expression now; all samples of a range."""
        return _series(self._get("query", query=expression, time=time.time()))

    def value(self, expression: str) -> float:
        """Return the single number of an expression; 0 if there is none."""
        found = self.instant(expression)
        return found[0].samples[0][1] if found else 0.0

    def over(self, expression: str, begin: float, end: float, step: float) -> list[Series]:
        """Return the values of an expression from one time to another."""
        return _series(self._get("query_range", query=expression, start=begin, end=end, step=step))

    def scraped(self, since: float) -> None:
        """Wait until every instance was scraped after that time."""

        def complete() -> bool:
            up = self.instant("timestamp(up) and up == 1")
            return sum(each.samples[0][1] > since for each in up) == len(self.instances)

        late = f"Not all of {self.instances} were scraped within {PATIENCE:.0f} s."
        until(complete, PATIENCE, late)

    def _get(self, path: str, **parameters: object) -> Any:
        status, body = self.server.answer("GET", f"/api/v1/{path}?{urlencode(parameters)}")
        if status != 200:
            raise RuntimeError(f"Prometheus answered {status}: {body.decode(errors='replace')}")
        return json.loads(body)["data"]


@contextmanager
def prometheus(
    ports: Mapping[str, int], *, scrape: float = 1.0, rules: Sequence[str] = ()
) -> Iterator[Prometheus]:
    """Scrape replicas, given by name and port, running or not; evaluate rules, given as texts."""
    with tempfile.TemporaryDirectory(prefix="convserve-prometheus-") as folder:
        files = [Path(folder, f"rules-{number}.yml") for number in range(len(rules))]
        for file, text in zip(files, rules, strict=True):
            file.write_text(text, "utf-8")
        configuration = Path(folder, "prometheus.yml")
        targets = [
            {"targets": [f"127.0.0.1:{number}"], "labels": {"instance": name}}
            for name, number in ports.items()
        ]
        configured = {
            "global": {
                "scrape_interval": milliseconds(scrape),
                "evaluation_interval": milliseconds(EVALUATE),
            },
            "rule_files": [str(file) for file in files],
            "scrape_configs": [{"job_name": JOB, "static_configs": targets}],
        }
        configuration.write_text(json.dumps(configured))  # JSON is YAML
        port = free_port()
        with started(
            [
                str(program("prometheus")),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            port=port,
            ready=lambda server: server.status("GET", "/-/ready") == 200,
            environment=os.environ,
        ) as server:
            yield Prometheus(server, list(ports))


def hastened(rules: str, times: float, least: float) -> str:
    """Return rules whose durations are divided by ``times``; windows keep ``least`` seconds."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found["count"]) * UNITS[found["unit"]] / times
        if found["before"] == "[":
            seconds = max(seconds, least)
        return found["before"] + milliseconds(seconds)

    return DURATION.sub(shorter, rules)


def milliseconds(seconds: float) -> str:
    """Return a duration as Prometheus writes it."""
    return f"{round(seconds * 1000)}ms"


def _series(data: Any) -> list[Series]:
    """Return the series of a vector or a matrix of the API."""
    return [
        Series(each["metric"], [(at, float(v)) for at, v in each.get("values") or [each["value"]]])
        for each in data["result"]
    ]
