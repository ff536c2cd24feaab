"""Which worker accepts a connection, and how room is accepted for one more."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from serving.server import accept
from serving.server.accept import Acceptor
from serving.server.http import connection
from serving.server.http.message import Request
from serving.server.http.pool import Pool
from serving.server.load import Load
from serving.server.sockets import most_connections
from tests.serving.server.http.engine import FAILURE, Answer

OK = b"HTTP/1.1 200 OK"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


async def answer(_: Request) -> Answer:
    return Answer(200, b"")


class Accepted:
    """A pool with an acceptor in this process, and its clients."""

    def __init__(self, most: int, others: Callable[[], Sequence[Load]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.pool = Pool(answer, failure=FAILURE, keep_alive=600)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.acceptor = Acceptor(
            self.pool,
            self.loop,
            self.listener,
            others=others,
            own=lambda: Load(self.pool.active, 0.0, 0),
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
        """Return the status line of the answer."""
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
        """Return True if the loop watches the listener."""
        if not self.loop.remove_reader(self.listener):
            return False
        self.loop.add_reader(self.listener, self.acceptor._readable)
        return True


@asynccontextmanager
async def accepts(
    most: int = 100, others: Callable[[], Sequence[Load]] = tuple
) -> AsyncIterator[Accepted]:
    accepted = Accepted(most, others)
    try:
        async with asyncio.timeout(60):
            yield accepted
    finally:
        if accepted.listener.fileno() >= 0:  # not drained
            accepted.acceptor.close()
        for client in accepted.clients:
            client.close()
        await accepted.until(lambda: not accepted.pool.clients)


def test_a_worker_that_does_not_accept_delays_the_others_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept, "DEFER_SECONDS", 2.0)
    monkeypatch.setattr(accept, "ACCEPT_ALL_SECONDS", 600.0)

    async def storm() -> None:
        async with accepts(others=lambda: [Load(0, 0.0, 1)]) as accepted:
            for _ in range(80):
                await accepted.ask(await accepted.connect())

    asyncio.run(storm())


def test_a_worker_that_accepts_gets_the_next_connection_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept, "DEFER_SECONDS", 600.0)
    other = [0]

    async def share() -> None:
        async with accepts(others=lambda: [Load(other[0], 0.0, 1)]) as accepted:
            await accepted.ask(await accepted.connect())
            await accepted.connect()
            await accepted.until(lambda: accepted.acceptor._deferred_to == (0, 0.0, 1))
            other[0] = 1
            await accepted.until(lambda: accepted.pool.clients == 2)

    asyncio.run(share())


def test_a_busier_worker_defers_as_many_connections_as_its_surplus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept, "DEFER_SECONDS", 600.0)
    other = [5]

    async def share() -> None:
        async with accepts(others=lambda: [Load(other[0], 0.0, 1)]) as accepted:
            accepted.acceptor._own = lambda: Load(accepted.pool.active, 1.0, 0)
            accepted.acceptor.spare = 1
            await accepted.connect()
            await accepted.until(lambda: accepted.acceptor._deferred_to == (5, 0.0, 1))
            other[0] = 6  # it accepted that one, and another arrives
            await accepted.until(lambda: accepted.pool.clients == 1)

    asyncio.run(share())


def test_connections_without_answers_are_not_active() -> None:
    async def crowd() -> None:
        async with accepts() as accepted:
            asks, _ = await accepted.connect(), await accepted.connect()
            await accepted.until(lambda: len(accepted.pool.connections) == 2)
            assert accepted.pool.active == 2  # they are new
            await accepted.ask(asks)
            accepted.pool.refresh()
            assert (accepted.pool.active, accepted.pool.clients) == (1, 2)
            accepted.pool.refresh()
            assert accepted.pool.active == 0
            await accepted.ask(asks)
            assert accepted.pool.active == 1
            asks.close()
            await accepted.until(lambda: accepted.pool.clients == 1)
            assert accepted.pool.active == 0

    asyncio.run(crowd())


@pytest.mark.parametrize(
    ("fraction", "closed"),
    [(0.6, [0]), (0.5, [1, 2]), (0.3, [1]), (0.2, [2]), (0.1, [])],
)
def test_rebalancing_closes_the_busiest_connections_after_their_answers(
    fraction: float, closed: list[int]
) -> None:
    async def crowd() -> None:
        async with accepts() as accepted:
            clients = [await accepted.connect() for _ in range(4)]
            await accepted.until(lambda: len(accepted.pool.connections) == 4)
            accepted.pool.refresh()
            accepted.pool.refresh()
            for client, count in zip(clients, (10, 5, 2, 0), strict=True):
                for _ in range(count):
                    await accepted.ask(client)
            accepted.pool.refresh()
            accepted.pool.rebalance(fraction)
            for number, client in enumerate(clients):
                assert await accepted.ask(client) == OK
                if number in closed:
                    assert not await accepted.loop.sock_recv(client, 1)
                else:
                    assert await accepted.ask(client) == OK

    asyncio.run(crowd())


def test_a_connection_marked_to_close_that_is_not_used_stays() -> None:
    async def crowd() -> None:
        async with accepts() as accepted:
            client = await accepted.connect()
            await accepted.ask(client)
            accepted.pool.refresh()
            accepted.pool.rebalance(1.0)
            accepted.pool.refresh()
            assert [await accepted.ask(client) for _ in range(2)] == [OK, OK]

    asyncio.run(crowd())


def test_the_connection_idle_for_longest_makes_room() -> None:
    async def crowd() -> None:
        async with accepts(most=8) as accepted:
            for count in range(1, 9):
                await accepted.ask(await accepted.connect())
                await accepted.until(lambda count=count: accepted.pool.clients == count)  # type: ignore[misc]
            kept = accepted.clients[:8]
            await accepted.ask(kept[0])
            assert await accepted.ask(await accepted.connect()) == OK
            assert not await accepted.loop.sock_recv(kept[1], 1)
            assert await accepted.ask(kept[0]) == OK

    asyncio.run(crowd())


def test_a_silent_connection_is_closed_before_an_idle_one() -> None:
    async def crowd() -> None:
        async with accepts(most=2) as accepted:
            idle = await accepted.connect()
            await accepted.ask(idle)
            await accepted.until(lambda: accepted.pool.clients == 1)
            silent = await accepted.connect()
            await accepted.until(lambda: accepted.pool.clients == 2)
            await accepted.ask(await accepted.connect())
            assert not await accepted.loop.sock_recv(silent, 1)
            assert await accepted.ask(idle) == OK

    asyncio.run(crowd())


def test_a_busy_connection_is_not_closed_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "BACK_OFF", 0.05)

    async def crowd() -> None:
        async with accepts(most=1) as accepted:
            proceed = asyncio.Event()

            async def slowly(request: Request) -> Answer:
                await proceed.wait()
                return await answer(request)

            accepted.pool.respond = slowly
            first = accepted.loop.create_task(accepted.ask(await accepted.connect()))
            await accepted.until(lambda: accepted.pool.in_progress == 1)
            second = await accepted.connect()
            await accepted.until(lambda: not accepted.listens())
            proceed.set()
            assert await first == OK
            assert await accepted.ask(second) == OK

    asyncio.run(crowd())


def test_a_connection_whose_body_drips_makes_room() -> None:
    async def crowd() -> None:
        async with accepts(most=2) as accepted:

            async def read(request: Request) -> Answer:
                while await request.chunk():
                    pass
                return await answer(request)

            accepted.pool.respond = read
            drips = await accepted.connect()
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
            for byte in (head, b"1", b"2"):
                await accepted.loop.sock_sendall(drips, byte)
            await accepted.until(lambda: accepted.pool.in_progress == 1)
            idle = await accepted.connect()
            await accepted.ask(idle)
            assert await accepted.ask(await accepted.connect()) == OK
            with suppress(ConnectionResetError):
                assert not await accepted.loop.sock_recv(drips, 1)
            await accepted.until(lambda: accepted.pool.in_progress == 0)
            assert await accepted.ask(idle) == OK

    asyncio.run(crowd())


@contextmanager
def files(most: int) -> Iterator[None]:
    """Set the soft limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_draining_accepts_the_whole_accept_queue() -> None:
    async def stop() -> None:
        async with accepts(most=1000) as accepted:
            address = accepted.listener.getsockname()
            for _ in range(2 * accept.BATCH):  # the loop does not run meanwhile
                accepted.clients.append(socket.create_connection(address))
                accepted.clients[-1].setblocking(False)
            accepted.acceptor.drain(queued=1000)
            assert accepted.listener.fileno() < 0
            for client in accepted.clients:
                assert await accepted.ask(client) == OK

    asyncio.run(stop())


@pytest.mark.parametrize("queued", [1, 3])
def test_draining_is_bounded(queued: int) -> None:
    async def stop() -> None:
        async with accepts() as accepted:
            address = accepted.listener.getsockname()
            accepted.clients += [socket.create_connection(address) for _ in range(4)]
            accepted.acceptor.drain(queued=queued)
            assert accepted.pool.clients == queued

    asyncio.run(stop())


def test_without_a_free_descriptor_a_client_waits_and_the_loop_sleeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accept, "BACK_OFF", 0.5)

    async def exhaust() -> None:
        async with accepts() as accepted:
            idle = await accepted.connect()
            await accepted.ask(idle)
            client = socket.socket()
            client.setblocking(False)
            accepted.clients.append(client)
            with files(0):
                await accepted.loop.sock_connect(client, accepted.listener.getsockname())
                await accepted.until(lambda: not accepted.listens())
            assert await accepted.ask(client) == OK

    asyncio.run(exhaust())


def test_the_file_limit_is_raised_and_some_descriptors_are_left() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with files(hard // 2):
        most = most_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    assert hard // 2 < most < hard


def test_a_silent_client_has_the_time_of_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.1)

    async def silence() -> None:
        async with accepts() as accepted:
            assert not await accepted.loop.sock_recv(await accepted.connect(), 1)

    asyncio.run(silence())
