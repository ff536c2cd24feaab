"""Which worker takes a connection, and what is done where there is no room for it."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from serving.api.exchange import Answer
from serving.server import accept
from serving.server.accept import Accepting
from serving.server.http import connection
from serving.server.http.message import Request
from serving.server.http.pool import Server
from serving.server.load import Share
from serving.server.sockets import most_connections

OK = b"HTTP/1.1 200 OK"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


async def answer(_: Request) -> Answer:
    return Answer(200, b"")


class Accepted:
    """A server of this process, and its clients."""

    def __init__(self, most: int, others: Callable[[], Sequence[Share]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.server = Server(answer, keep_alive=600)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.accepting = Accepting(
            self.server,
            self.loop,
            self.listener,
            others=others,
            own=lambda: Share(self.server.active, 0.0, 0),
            most=most,
        )
        self.clients: list[socket.socket] = []

    async def connect(self) -> socket.socket:
        client = socket.socket()
        client.setblocking(False)
        self.clients.append(client)
        await self.loop.sock_connect(client, self.listener.getsockname())
        return client

    async def ask(self, client: socket.socket) -> bytes:
        """The status line of the answer."""
        await self.loop.sock_sendall(client, GET)
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            part = await self.loop.sock_recv(client, 65536)
            assert part, "closed"
            got += part
        return got.partition(b"\r\n")[0]

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.001)

    def listens(self) -> bool:
        """Whether the loop is told of a client that waits."""
        if not self.loop.remove_reader(self.listener):
            return False
        self.loop.add_reader(self.listener, self.accepting._comes)
        return True


@asynccontextmanager
async def accepts(
    most: int = 100, others: Callable[[], Sequence[Share]] = tuple
) -> AsyncIterator[Accepted]:
    made = Accepted(most, others)
    try:
        async with asyncio.timeout(60):
            yield made
    finally:
        made.accepting.stop()
        for client in made.clients:
            client.close()
        await made.until(lambda: not made.server.clients)


def test_a_worker_that_takes_none_costs_the_others_one_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept, "COURTESY", 2.0)
    monkeypatch.setattr(accept, "FORFEIT", 600.0)

    async def storm() -> None:
        async with accepts(others=lambda: [Share(0, 0.0, 1)]) as made:
            for _ in range(80):
                await made.ask(await made.connect())

    asyncio.run(storm())


def test_a_worker_that_takes_one_gets_the_next_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "COURTESY", 600.0)
    other = [0]

    async def share() -> None:
        async with accepts(others=lambda: [Share(other[0], 0.0, 1)]) as made:
            await made.ask(await made.connect())
            await made.connect()
            await made.until(lambda: made.accepting._left_to == (0, 0.0, 1))
            other[0] = 1
            await made.until(lambda: made.server.clients == 2)

    asyncio.run(share())


def test_a_busier_worker_leaves_as_many_as_it_has_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept, "COURTESY", 600.0)
    other = [5]

    async def share() -> None:
        async with accepts(others=lambda: [Share(other[0], 0.0, 1)]) as made:
            made.accepting._own = lambda: Share(made.server.active, 1.0, 0)
            made.accepting.spare = 1
            await made.connect()
            await made.until(lambda: made.accepting._left_to == (5, 0.0, 1))
            other[0] = 6  # it took that one, and another comes
            await made.until(lambda: made.server.clients == 1)

    asyncio.run(share())


def test_connections_that_are_not_answered_count_no_longer() -> None:
    async def crowd() -> None:
        async with accepts() as made:
            asks, _ = await made.connect(), await made.connect()
            await made.until(lambda: len(made.server.connections) == 2)
            assert made.server.active == 2  # they are new
            await made.ask(asks)
            made.server.look()
            assert (made.server.active, made.server.clients) == (1, 2)
            made.server.look()
            assert made.server.active == 0
            await made.ask(asks)
            assert made.server.active == 1
            asks.close()
            await made.until(lambda: made.server.clients == 1)
            assert made.server.active == 0

    asyncio.run(crowd())


@pytest.mark.parametrize(
    ("part", "gone"),
    [(0.6, [0]), (0.5, [1, 2]), (0.3, [1]), (0.2, [2]), (0.1, [])],
)
def test_those_that_are_asked_most_go_with_their_next_answers(part: float, gone: list[int]) -> None:
    async def crowd() -> None:
        async with accepts() as made:
            clients = [await made.connect() for _ in range(4)]
            await made.until(lambda: len(made.server.connections) == 4)
            made.server.look()
            made.server.look()
            for client, count in zip(clients, (10, 5, 2, 0), strict=True):
                for _ in range(count):
                    await made.ask(client)
            made.server.look()
            made.server.let_go(part)
            for number, client in enumerate(clients):
                assert await made.ask(client) == OK
                if number in gone:
                    assert not await made.loop.sock_recv(client, 1)
                else:
                    assert await made.ask(client) == OK

    asyncio.run(crowd())


def test_who_was_to_go_and_did_not_ask_stays() -> None:
    async def crowd() -> None:
        async with accepts() as made:
            client = await made.connect()
            await made.ask(client)
            made.server.look()
            made.server.let_go(1.0)
            made.server.look()
            assert [await made.ask(client) for _ in range(2)] == [OK, OK]

    asyncio.run(crowd())


def test_the_longest_idle_makes_room_for_one_more() -> None:
    async def crowd() -> None:
        async with accepts(most=8) as made:
            for count in range(1, 9):
                await made.ask(await made.connect())
                await made.until(lambda count=count: made.server.clients == count)  # type: ignore[misc]
            kept = made.clients[:8]
            await made.ask(kept[0])
            assert await made.ask(await made.connect()) == OK
            assert not await made.loop.sock_recv(kept[1], 1)
            assert await made.ask(kept[0]) == OK

    asyncio.run(crowd())


def test_who_sent_nothing_goes_before_who_idles() -> None:
    async def crowd() -> None:
        async with accepts(most=2) as made:
            idle = await made.connect()
            await made.ask(idle)
            await made.until(lambda: made.server.clients == 1)
            silent = await made.connect()
            await made.until(lambda: made.server.clients == 2)
            await made.ask(await made.connect())
            assert not await made.loop.sock_recv(silent, 1)
            assert await made.ask(idle) == OK

    asyncio.run(crowd())


def test_a_connection_at_work_is_not_closed_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "BACK_OFF", 0.05)

    async def crowd() -> None:
        async with accepts(most=1) as made:
            go_on = asyncio.Event()

            async def slowly(request: Request) -> Answer:
                await go_on.wait()
                return await answer(request)

            made.server.respond = slowly
            first = made.loop.create_task(made.ask(await made.connect()))
            await made.until(lambda: made.server.at_work == 1)
            second = await made.connect()
            await made.until(lambda: not made.listens())
            go_on.set()
            assert await first == OK
            assert await made.ask(second) == OK

    asyncio.run(crowd())


def test_a_body_that_drips_makes_room_for_one_more() -> None:
    async def crowd() -> None:
        async with accepts(most=2) as made:

            async def read(request: Request) -> Answer:
                while await request.chunk():
                    pass
                return await answer(request)

            made.server.respond = read
            drips = await made.connect()
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
            for byte in (head, b"1", b"2"):
                await made.loop.sock_sendall(drips, byte)
            await made.until(lambda: made.server.at_work == 1)
            idle = await made.connect()
            await made.ask(idle)
            assert await made.ask(await made.connect()) == OK
            with suppress(ConnectionResetError):
                assert not await made.loop.sock_recv(drips, 1)
            await made.until(lambda: made.server.at_work == 0)
            assert await made.ask(idle) == OK

    asyncio.run(crowd())


@contextmanager
def files(most: int) -> Iterator[None]:
    """The soft limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_file_for_it_a_client_waits_and_burns_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept, "BACK_OFF", 0.5)

    async def exhaust() -> None:
        async with accepts() as made:
            idle = await made.connect()
            await made.ask(idle)
            client = socket.socket()
            client.setblocking(False)
            made.clients.append(client)
            with files(0):
                await made.loop.sock_connect(client, made.listener.getsockname())
                await made.until(lambda: not made.listens())
            assert await made.ask(client) == OK

    asyncio.run(exhaust())


def test_as_many_files_as_the_system_allows_may_be_open_and_some_are_left_for_others() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with files(hard // 2):
        most = most_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    assert hard // 2 < most < hard


def test_who_never_sends_a_byte_has_as_long_as_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.1)

    async def silence() -> None:
        async with accepts() as made:
            assert not await made.loop.sock_recv(await made.connect(), 1)

    asyncio.run(silence())
