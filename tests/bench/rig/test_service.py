import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from tempfile import TemporaryFile

import pytest

from bench.rig.service import Server, free_port, newest, observe, started, until, versions
from bench.rig.sockets import outbound, owners

PAGE = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]


def test_a_free_port_is_given_once() -> None:
    ports = [free_port() for _ in range(20)]
    assert len(set(ports)) == 20


def test_the_newest_version_has_the_highest_number() -> None:
    numbers = [int(path.name) for path in versions("digits")]
    assert numbers == sorted(numbers)
    assert newest("digits").name == str(numbers[-1])


def test_waiting_ends_with_the_condition_or_with_its_message() -> None:
    left = iter([False, True])
    until(lambda: next(left), 10, "never", every=0)
    with pytest.raises(TimeoutError, match="too late"):
        until(lambda: False, 0, "too late", every=0)


def test_a_process_that_is_gone_has_the_value_given_instead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        assert observe(ended.pid, lambda it: it.num_fds(), -1) == -1


@pytest.fixture
def server() -> Iterator[Server]:
    with TemporaryFile("w+") as log:
        yield Server(subprocess.Popen(["sleep", "60"], text=True), free_port(), log)


def test_a_server_is_observed_from_outside(server: Server) -> None:
    with server.process:
        assert server.processes() == [server.process.pid]
        assert server.workers() == []
        assert server.cpu().keys() == {server.process.pid}
        until(lambda: 0 < server.pss() < 50, 10, "The memory is not known.")
        assert server.status("GET", "/") == 0
        server.process.kill()
    assert server.pss() == 0


def test_a_server_that_exits_at_once_is_reported_with_its_output() -> None:
    command = [sys.executable, "-c", "print('no way')"]
    with (
        pytest.raises(RuntimeError, match="no way"),
        started(command, port=1, ready=lambda _: False, environment=os.environ),
    ):
        pass


def test_a_server_is_ready_when_it_answers() -> None:
    port = free_port()
    with started(
        [*PAGE, str(port)],
        port=port,
        ready=lambda it: it.status("GET", "/") == 200,
        environment=os.environ,
    ) as it:
        assert it.ready_after > 0
        assert it.status("GET", "/nothing") == 404
    assert it.process.returncode is not None


def test_the_connections_of_a_process_are_attributed_to_the_side_that_opened_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            ours = client.getsockname()[1]
            accepted, _ = listener.accept()
            with accepted:
                assert owners([os.getpid()], port) == {ours: os.getpid()}
                assert ("tcp", "127.0.0.1", port) in outbound([os.getpid()], port)
                assert ("tcp", "127.0.0.1", ours) not in outbound([os.getpid()], port)
