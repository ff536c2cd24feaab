"""Probe paths periodically while something else happens, and record how long each answer took.

Each probe is sent on a new connection, as an orchestrator does. Knows HTTP alone.
"""

from itertools import repeat

from bench.clients.traffic import Call, Client
from bench.reporting.figures import percentile
from bench.rig.service import Server

# Seconds between two. Prometheus scrapes every 15; ten scrapes a second would be a load themselves.
PERIODS = {"/healthz": 0.1, "/readyz": 0.1, "/metrics": 1.0}


class Probe(Client):
    """A client that requests one path, at most every ``period`` seconds."""

    def __init__(self, server: Server, path: str, *, period: float) -> None:
        calls = repeat(Call(path, method="GET"))
        super().__init__(server, calls, pause=period, keep_alive=False)
        self.path = path

    @property
    def failed(self) -> int:
        """The number of probes with another status than 200, or without an answer."""
        return sum(each.status != 200 for each in self.outcomes)

    def at(self, share: float) -> float:
        """Return a percentile of the latency in milliseconds."""
        return percentile([each.seconds * 1000 for each in self.outcomes], share)


def probes(server: Server) -> list[Probe]:
    """Start a probe for each path that orchestrators and Prometheus request."""
    made = [Probe(server, path, period=period) for path, period in PERIODS.items()]
    for each in made:
        each.start()
    return made
