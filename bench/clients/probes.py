"""Ask for a path again and again while something else happens, and note how long each answer took.

Every time on a new connection, as the probes of an orchestrator come. Knows HTTP alone.
"""

import http.client
import threading
import time
from dataclasses import dataclass

from bench.reporting.figures import percentile
from bench.rig.service import Server

# Seconds between two. Prometheus comes every 15, and ten pages a second would be a load themselves.
PROBED = {"/healthz": 0.1, "/readyz": 0.1, "/metrics": 1.0}
PATIENCE = 30.0


@dataclass(frozen=True)
class Probed:
    """One answer; status 0 where there was none."""

    at: float  # a ``time.monotonic()``
    status: int
    seconds: float


class Probe(threading.Thread):
    """Asks for one path, every ``period`` seconds at most."""

    def __init__(self, server: Server, path: str, *, period: float) -> None:
        super().__init__(daemon=True)
        self.path, self.seen = path, list[Probed]()
        self._server, self._period = server, period
        self._stop_it = threading.Event()
        self.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop_it.set()
        self.join()

    def run(self) -> None:
        """Until told to stop."""
        while not self._stop_it.wait(self._period):
            began = time.monotonic()
            status = asked(self._server, self.path)
            self.seen.append(Probed(began, status, time.monotonic() - began))

    @property
    def failed(self) -> int:
        """Answers that were not 200, and those that never came."""
        return sum(each.status != 200 for each in self.seen)

    def at(self, share: float) -> float:
        """A percentile, in milliseconds."""
        return percentile([each.seconds * 1000 for each in self.seen], share)


def probes(server: Server) -> list[Probe]:
    """One for each of the paths that orchestrators and Prometheus ask for."""
    return [Probe(server, path, period=period) for path, period in PROBED.items()]


def asked(
    server: Server, path: str, body: bytes | None = None, kind: str = "", method: str = "GET"
) -> int:
    """The status of one request on a new connection; 0 where there is none."""
    connection = server.connect(PATIENCE)
    try:
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    else:
        return answer.status
    finally:
        connection.close()
