"""The TCP and UDP connections of processes, and which process holds which."""

import socket
from collections.abc import Iterable, Iterator
from typing import Any

from bench.rig.service import observe

Connection = tuple[str, str, int]  # kind, remote address, remote port


def owners(pids: Iterable[int], port: int) -> dict[int, int]:
    """Return which process holds each connection to our ``port``: client's port to process id."""
    return {
        each.raddr.port: pid
        for pid in pids
        for each in _connections(pid)
        if each.raddr and each.laddr.port == port
    }


def outbound(pids: Iterable[int], port: int) -> set[Connection]:
    """Return the connections that processes opened: all but those to our own ``port``."""
    return {
        ("tcp" if each.type == socket.SOCK_STREAM else "udp", *(each.raddr or ("", 0)))
        for pid in pids
        for each in _connections(pid)
        if each.laddr.port != port
    }


def _connections(pid: int) -> Iterator[Any]:
    """Yield psutil's entry of each socket that a process holds and does not listen on."""
    found: list[Any] = observe(pid, lambda it: it.net_connections("inet"), [])
    return (each for each in found if each.laddr and each.status != "LISTEN")
