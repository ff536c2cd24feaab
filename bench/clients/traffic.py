"""Well-behaved clients that record each answer to correct and incorrect requests.

In Python, one thread per client: wrk reconnects silently where a connection breaks, and here each
broken connection matters. Knows HTTP; knows nothing of what is done to the server.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from bench.clients import bodies
from bench.reporting.figures import rotated
from bench.rig.kill import Kill
from bench.rig.service import Server

PNG, JSON = "image/png", "application/json"
# Refusals that any request may get.
REFUSALS = {
    408: {"body_too_slow"},
    503: {"overloaded", "draining"},
    504: {"deadline_exceeded"},
}
EXCUSED = "but for those of killed workers"  # of broken connections in a table
YOUNG = 0.5  # seconds before a kill in which a connection is too young to be known


@dataclass(frozen=True)
class Call:
    """A request, and the status that it must get."""

    path: str
    body: bytes = b""
    content_type: str = ""
    expected: int = 200
    method: str = "POST"


@dataclass(frozen=True)
class Outcome:
    """The answer to one request as a client saw it; status 0 where the connection broke."""

    call: Call
    began: float  # a ``time.monotonic()``
    seconds: float
    status: int
    code: str  # of an error, or what broke; or what the client's function ``note`` returned
    port: int  # of the client

    @property
    def broke(self) -> bool:
        """Return True if there was no answer."""
        return self.status == 0

    @property
    def kept(self) -> bool:
        """Return True if the answer has the expected status, or is a refusal with its reason."""
        return self.status == self.call.expected or self.code in REFUSALS.get(self.status, set())


def blameless(outcome: Outcome, kills: Sequence[Kill]) -> bool:
    """Return True if a broken request was on a connection of a worker that was killed then."""
    # A connection missing in the snapshot was opened in the very moment of the kill.
    return any(
        each.owners.get(outcome.port, each.pid) == each.pid
        for each in kills
        if outcome.began - YOUNG <= each.at <= outcome.began + outcome.seconds + YOUNG
    )


def right(name: str) -> list[Call]:
    """Return correct requests for a model, of every kind of body."""
    files, path = bodies.files(name), f"/predict/{name}"
    kind = bodies.single(files).content_type
    return [
        *(Call(path, file, kind) for file in files),
        Call(f"{path}?top=1", files[0], "application/octet-stream"),
        Call(f"/predict?model={name}", bodies.form(files[:1]), bodies.FORM),
        Call(path, bodies.form(files[:8]), bodies.FORM),
        Call(path, bodies.in_json(files[:3]), JSON),
    ]


def wrong() -> list[Call]:
    """Return requests that must be refused."""
    seven = bodies.files("digits")[7]
    return [
        Call("/predict/digits", b"a seven", PNG, 400),
        Call("/predict/digits", seven[: len(seven) // 2], PNG, 400),
        Call("/predict/digits", b"", PNG, 400),
        Call("/predict/digits?versoin=1", seven, PNG, 400),
        Call("/predict/digits", b'{"images": [', JSON, 400),
        Call("/predict/dogs", seven, PNG, 404),
        Call("/predict/digits?version=999", seven, PNG, 404),
        Call("/nothing", seven, PNG, 404),
        Call("/predict/digits", b"", PNG, 405, method="PUT"),
        Call("/predict/digits", seven, "text/plain", 415),
        Call("/predict/digits", bodies.form([seven] * 65), bodies.FORM, 413),
    ]


def mixture() -> list[Call]:
    """Return requests for all models with all kinds of bodies, every fourth one incorrect."""
    calls = [call for several in zip(*map(right, bodies.NAMES), strict=True) for call in several]
    mixed, refused = list[Call](), cycle(wrong())
    for place, call in enumerate(calls):
        mixed.append(call)
        if place % 3 == 2:
            mixed.append(next(refused))
    return mixed


def error_code(status: int, body: bytes) -> str:
    """Return the code of an error; an empty text if the answer is not an error."""
    if status < 400:
        return ""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return f"not an error of the documented shape: {body[:80]!r}"


class Client(threading.Thread):
    """Sends calls one after another, on one kept connection or on new ones, and records answers."""

    def __init__(
        self,
        server: Server,
        calls: Iterable[Call] = (),
        *,
        pause: float = 0.0,
        keep_alive: bool = True,
        note: Callable[[int, bytes], str] = error_code,
    ) -> None:
        super().__init__(daemon=True)
        self.outcomes: list[Outcome] = []
        self._connection = server.connect()
        self._calls, self._pause, self._keep_alive, self._note = calls, pause, keep_alive, note
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Send no further calls."""
        self._stopping.set()

    def run(self) -> None:
        """Send calls until `stop` is called or none is left."""
        for call in self._calls:
            self.outcomes.append(self.send(call))
            if self._stopping.wait(self._pause):
                break
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def send(self, call: Call) -> Outcome:
        """Send one call, and wait for its answer."""
        began, port = time.monotonic(), 0
        try:
            if self._connection.sock is None:
                self._connection.connect()
            port = self._connection.sock.getsockname()[1]
            headers = {"Content-Type": call.content_type} if call.content_type else {}
            self._connection.request(call.method, call.path, call.body or None, headers)
            answer = self._connection.getresponse()
            status, code = answer.status, self._note(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            status, code = 0, repr(exc)
            time.sleep(0.01)  # do not spin while nothing listens
        outcome = Outcome(call, began, time.monotonic() - began, status, code, port)
        if not self._keep_alive:
            self.close()
        return outcome


def clients(server: Server, calls: Sequence[Call], count: int, *, pause: float = 0) -> list[Client]:
    """Start clients, each of which begins at another call and repeats all of them."""
    made = [
        Client(server, cycle(rotated(calls, number * len(calls) // count)), pause=pause)
        for number in range(count)
    ]
    for each in made:
        each.start()
    return made


def stopped(running: Sequence[Client]) -> list[Outcome]:
    """Stop clients; return all outcomes in the order of time."""
    for client in running:
        client.stop()
    for client in running:
        client.join()
    return sorted((o for client in running for o in client.outcomes), key=lambda o: o.began)


def recent(running: Sequence[Client]) -> Iterator[list[Outcome]]:
    """Yield, each time, what running clients have recorded since the last time."""
    taken = [0] * len(running)
    while True:
        new = [client.outcomes[count:] for client, count in zip(running, taken, strict=True)]
        taken = [count + len(each) for each, count in zip(new, taken, strict=True)]
        yield [outcome for each in new for outcome in each]
