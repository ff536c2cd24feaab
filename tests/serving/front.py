"""A client of the dispatcher with the interface of Flask's; its bytes travel over a socket."""

import asyncio
import http.client
import socket
from typing import Any, ClassVar
from urllib.parse import quote

from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, TestResponse

from serving.app import SERVICE
from serving.server.dispatch import Dispatcher
from serving.server.http.connection import Connection


class Client:
    """Sends to the dispatcher what Flask's test client sends to Flask."""

    made: ClassVar[list["Client"]] = []  # closed after each test

    def __init__(self, app: Flask) -> None:
        self.made.append(self)
        service = app.extensions[SERVICE]
        self._loop = service.loop
        self.pool = Dispatcher(app, service).pool(keep_alive=60.0)

    def get(self, path: str, **given: Any) -> TestResponse:
        return self.open(path, method="GET", **given)

    def head(self, path: str, **given: Any) -> TestResponse:
        return self.open(path, method="HEAD", **given)

    def post(self, path: str, **given: Any) -> TestResponse:
        return self.open(path, method="POST", **given)

    def open(self, path: str, **given: Any) -> TestResponse:
        builder = EnvironBuilder(path, **given)
        sent = builder.get_request()
        target, _, query = path.partition("?")
        query = quote(sent.query_string.decode() or query, safe="%=&+")
        with self.connect() as client:
            connection = http.client.HTTPConnection("front")
            connection.sock = client
            target = quote(target) + (f"?{query}" if query else "")
            connection.putrequest(sent.method, target, skip_accept_encoding=True)
            for name, text in builder.headers:  # several of one name, too
                if name not in ("Content-Type", "Content-Length"):
                    connection.putheader(name, text)
            for name in ("Content-Type", "Content-Length"):
                if name in sent.headers:
                    connection.putheader(name, sent.headers[name])
            connection.endheaders(sent.environ["wsgi.input"].read())
            answer = connection.getresponse()
            headers = Headers(answer.getheaders())
            return TestResponse([answer.read()], f"{answer.status}", headers, sent)

    def connect(self) -> socket.socket:
        """Return a connection on which nothing was sent."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname(), timeout=60)
            theirs, _ = listener.accept()
        self._loop.run(self._accept(theirs))
        return ours

    def close(self) -> None:
        """Close all connections."""
        self._loop.run(self._abort())

    async def _abort(self) -> None:
        for each in list(self.pool.connections):
            each.abort()
        await asyncio.sleep(0)

    async def _accept(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        client.setblocking(False)
        await loop.connect_accepted_socket(lambda: Connection(self.pool, loop), client)
