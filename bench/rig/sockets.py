"""The TCP and UDP sockets of processes, as /proc tells them."""

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TABLES = ("tcp", "tcp6", "udp", "udp6")
LISTENS = "0A"


@dataclass(frozen=True)
class Socket:
    """One end of a connection."""

    kind: str
    local: tuple[str, int]
    remote: tuple[str, int]
    state: str
    inode: int


def sockets(pid: int) -> list[Socket]:
    """The sockets that a process holds; none where it is gone."""
    held = set(_inodes(pid))
    found = []
    for kind in TABLES:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
                each = _read(kind, line.split())
                if each.inode in held:
                    found.append(each)
    return found


def owners(pids: Iterable[int], port: int) -> dict[int, int]:
    """Who holds the connections to our ``port``: port of the client to process id."""
    return {
        each.remote[1]: pid
        for pid in pids
        for each in sockets(pid)
        if each.local[1] == port and each.state != LISTENS
    }


def outbound(pids: Iterable[int], port: int) -> set[tuple[str, str, int]]:
    """What processes have opened themselves: kind, address and port of the other side.

    Everything but connections to our own ``port``.
    """
    return {
        (each.kind, *each.remote)
        for pid in pids
        for each in sockets(pid)
        if each.local[1] != port and each.state != LISTENS
    }


def _inodes(pid: int) -> Iterable[int]:
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(file.readlink())
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _read(kind: str, columns: list[str]) -> Socket:
    return Socket(kind, _address(columns[1]), _address(columns[2]), columns[3], int(columns[9]))


def _address(text: str) -> tuple[str, int]:
    """``0100007F:1F90``: the words of the address in the order of this machine."""
    host, port = text.split(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
