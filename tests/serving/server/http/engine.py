"""A bare engine on a free port: no route, no model, a handler of a few lines."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from serving.errors import ServingError
from serving.server.http.connection import Connection
from serving.server.http.message import Request
from serving.server.http.pool import Pool
from tests.serving.waiting import until

LONG = b"x" * 100_000


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)


FAILURE = Answer(500, b"failure")


def respond(request: Request) -> Answer | Coroutine[Any, Any, Answer]:
    """Answer ``/now`` and ``/unread-now`` without waiting, and echo the rest."""
    at_once = {"/now": b"now", "/unread-now": b"unread"}
    if (body := at_once.get(request.path)) is not None and request.method:
        return Answer(200, body)
    return echo(request)


async def echo(request: Request) -> Answer:
    """Answer with the method, the path and the body, or with the error of a malformed request."""
    if request.path == "/unread":
        return Answer(200, b"unread")
    if request.path == "/refused":
        return Answer(503, b"refused")
    if request.path == "/bug":
        raise KeyError("secret")
    if request.path == "/long":
        return Answer(200, LONG)
    parts = [f"{request.method} {request.path} {request.query} ".encode()]
    try:
        if not request.method and request.error:
            raise request.error
        while part := await request.chunk():
            parts.append(part)
    except ServingError as exc:
        return Answer(exc.status, f"{exc.code} {exc}".encode())
    return Answer(200, b"".join(parts))


class Engine(Pool):
    """A pool whose event loop runs in a thread and listens on a port."""

    port: int
    loop: asyncio.AbstractEventLoop

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def exchange(self, *sent: bytes) -> str:
        """Send on a connection of its own. Return all that is received until the end."""
        with self.connect() as client:
            for part in sent:
                client.sendall(part)
            return rest(client)


@contextmanager
def running(*, keep_alive: float) -> Iterator[Engine]:
    """Run an engine that answers with ``echo``."""
    engine = Engine(respond, failure=FAILURE, keep_alive=keep_alive)
    engine.loop = loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(
        loop.create_server(lambda: Connection(engine, loop), "127.0.0.1", 0)
    )
    engine.port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield engine
    for connection in list(engine.connections):
        loop.call_soon_threadsafe(connection.abort)
    until(lambda: not engine.connections)
    loop.call_soon_threadsafe(listening.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def rest(client: socket.socket) -> str:
    """Return everything received until the engine closes."""
    received = b""
    while part := client.recv(65536):
        received += part
    return received.decode("latin-1")


def one(client: socket.socket) -> tuple[int, bytes]:
    """Return status and body of the next answer; read no byte after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += (byte := client.recv(1))
        assert byte, head
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return int(head.split()[1]), body


def bodies(received: str) -> list[str]:
    """Return the bodies of answers that are all 200."""
    found = []
    while received:
        head, _, rest = received.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\n"), received
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        found.append(rest[:length])
        received = rest[length:]
    return found
