"""Well-behaved clients that keep what they saw: right and wrong requests, each with its statuses.

In Python, a thread each: wrk connects anew in silence where a connection breaks, and here it is to
be known which one broke, and when. Knows HTTP; knows nothing of what is done to the server.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle

from bench.clients import bodies
from bench.rig.service import Server

PNG, JSON = "image/png", "application/json"
# Allowed to any request.
REFUSALS = {
    408: {"body_too_slow"},
    503: {"overloaded", "draining"},
    504: {"deadline_exceeded"},
}


@dataclass(frozen=True)
class Call:
    """A request, and the status it must get."""

    path: str
    body: bytes
    content_type: str
    expected: int = 200
    method: str = "POST"


@dataclass(frozen=True)
class Outcome:
    """What a client saw of one request; status 0 where the connection broke."""

    call: Call
    began: float  # a ``time.monotonic()``
    seconds: float
    status: int
    code: str  # of an error, or what broke; what a client was told to note
    port: int  # of the client

    @property
    def broke(self) -> bool:
        """There was no answer."""
        return self.status == 0

    @property
    def kept(self) -> bool:
        """The promise: the expected status, or a refusal with its reason."""
        return self.status == self.call.expected or self.code in REFUSALS.get(self.status, set())


def right(name: str) -> list[Call]:
    """Every kind of body for a model."""
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
    """Requests that must be refused."""
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
    """All models, all kinds of bodies, and a wrong request now and then."""
    calls = [call for several in zip(*map(right, bodies.NAMES), strict=True) for call in several]
    mixed, refused = list[Call](), wrong()
    for place, call in enumerate(calls):
        mixed.append(call)
        if place % 3 == 2:
            mixed.append(refused[place // 3 % len(refused)])
    return mixed


def error_code(status: int, body: bytes) -> str:
    """Of an error its code, of what is no error nothing."""
    if status < 400:
        return ""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return f"no error of the one shape: {body[:80]!r}"


class Client(threading.Thread):
    """Sends calls one after another on a connection that it keeps, and notes what comes."""

    def __init__(
        self,
        server: Server,
        calls: Iterable[Call] = (),
        *,
        pause: float = 0.0,
        noted: Callable[[int, bytes], str] = error_code,
    ) -> None:
        super().__init__(daemon=True)
        self.outcomes: list[Outcome] = []
        self._connection = server.connect()
        self._calls, self._pause, self._noted = calls, pause, noted
        self._stop_it = threading.Event()

    def stop(self) -> None:
        """Send no more."""
        self._stop_it.set()

    def run(self) -> None:
        """Until told to stop, or to the end of the calls."""
        for call in self._calls:
            self.outcomes.append(self.sent(call))
            if self._stop_it.wait(self._pause) if self._pause else self._stop_it.is_set():
                break
        self._connection.close()

    def sent(self, call: Call) -> Outcome:
        """Send one, and wait for its answer."""
        began, port = time.monotonic(), 0
        try:
            if self._connection.sock is None:
                self._connection.connect()
            port = self._connection.sock.getsockname()[1]
            headers = {"Content-Type": call.content_type}
            self._connection.request(call.method, call.path, call.body, headers)
            answer = self._connection.getresponse()
            status, code = answer.status, self._noted(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            status, code = 0, repr(exc)
            time.sleep(0.01)  # who finds nobody listening does not ask at once again
        return Outcome(call, began, time.monotonic() - began, status, code, port)


def clients(server: Server, calls: Sequence[Call], count: int, *, pause: float = 0) -> list[Client]:
    """So many clients, started, each beginning at another call."""
    started = []
    for number in range(count):
        turn = number * len(calls) // count
        started.append(Client(server, cycle([*calls[turn:], *calls[:turn]]), pause=pause))
        started[-1].start()
    return started


def stopped(running: Sequence[Client]) -> list[Outcome]:
    """Stop them; all that they saw, in the order of time."""
    for client in running:
        client.stop()
    for client in running:
        client.join()
    return sorted((o for client in running for o in client.outcomes), key=lambda o: o.began)
