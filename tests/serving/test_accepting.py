"""Which worker takes a connection, and what is done where there is no room for it."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from serving import accepting, http
from serving.accepting import NONE, Accepting, Fewest, Shares, excess
from serving.http import Server
from serving.listeners import most_connections
from serving.message import Answer, Request

OK = b"HTTP/1.1 200 OK"
GET = b"GET / HTTP/1.1\r\n\r\n"


def test_the_fewest_connections_are_those_of_another_that_accepts() -> None:
    shares = Shares()
    assert shares.fewest(4, but=3) is None
    shares.tell(0, 5)
    shares.tell(2, 3)
    assert shares.fewest(4, but=3) == (3, 2)
    assert shares.fewest(4, but=2) == (5, 0)
    shares.tell(2, NONE)
    assert shares.fewest(4, but=3) == (5, 0)


def test_workers_see_what_another_tells() -> None:
    shares = Shares()
    if (child := os.fork()) == 0:
        shares.tell(1, 7)
        os._exit(0)
    os.waitpid(child, 0)
    assert shares.fewest(4, but=0) == (7, 1)


def test_a_worker_that_says_nothing_counts_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = Shares()
    shares.tell(1, 7)
    monkeypatch.setattr(accepting, "STALE", 0)
    assert shares.fewest(4, but=0) is None


@pytest.mark.parametrize(
    ("clients", "fewest", "expected"),
    [
        (8, None, 0),
        (1, 0, 0),
        (2, 0, 1),
        (8, 0, 4),
        (5, 3, 1),
        (4, 3, 0),
        (50, 40, 0),
        (300, 0, 128),
    ],
)
def test_a_worker_gives_up_what_brings_it_half_the_way_to_another(
    clients: int, fewest: int | None, expected: int
) -> None:
    assert excess(clients, None if fewest is None else (fewest, 1)) == expected


async def answer(_: Request) -> Answer:
    return Answer(200, b"")


class Accepted:
    """A server of this process, and its clients."""

    def __init__(self, most: int, fewest: Callable[[], Fewest | None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.server = Server(answer, keep_alive=600)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.accepting = Accepting(self.server, self.loop, self.listener, fewest=fewest, most=most)
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
    most: int = 100, fewest: Callable[[], Fewest | None] = lambda: None
) -> AsyncIterator[Accepted]:
    made = Accepted(most, fewest)
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
    monkeypatch.setattr(accepting, "COURTESY", 2.0)
    monkeypatch.setattr(accepting, "FORFEIT", 600.0)

    async def storm() -> None:
        async with accepts(fewest=lambda: (0, 1)) as made:
            for _ in range(80):
                await made.ask(await made.connect())

    asyncio.run(storm())


def test_a_worker_that_takes_one_gets_the_next_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "COURTESY", 600.0)
    other = [0]

    async def share() -> None:
        async with accepts(fewest=lambda: (other[0], 1)) as made:
            await made.ask(await made.connect())
            await made.connect()
            await made.until(lambda: made.accepting._left_to == (0, 1))
            other[0] = 1
            await made.until(lambda: made.server.clients == 2)

    asyncio.run(share())


def test_connections_that_are_not_answered_count_no_longer() -> None:
    async def crowd() -> None:
        async with accepts() as made:
            asks, _ = await made.connect(), await made.connect()
            await made.until(lambda: len(made.server.connections) == 2)
            made.server.look()
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


def test_an_excess_connection_ends_with_its_next_answer() -> None:
    async def crowd() -> None:
        async with accepts() as made:
            first, second = await made.connect(), await made.connect()
            await made.until(lambda: made.server.clients == 2)
            made.server.excess = 1
            assert await made.ask(first) == OK
            assert not await made.loop.sock_recv(first, 1)
            assert [await made.ask(second) for _ in range(2)] == [OK, OK]

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
    monkeypatch.setattr(accepting, "BACK_OFF", 0.05)

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
    monkeypatch.setattr(accepting, "BACK_OFF", 0.5)

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
    monkeypatch.setattr(http, "PATIENCE", 0.1)

    async def silence() -> None:
        async with accepts() as made:
            assert not await made.loop.sock_recv(await made.connect(), 1)

    asyncio.run(silence())
