"""What the kernel is asked about the sockets that listen, or told.

Knows Linux, and does without where it is not Linux; knows nothing of gunicorn.
"""

import contextlib
import ctypes
import os
import resource
import socket
import struct
from pathlib import Path

from serving.errors import SettingsError

# A classic BPF program: drop a TCP segment with SYN and without ACK, pass any other.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load byte 13 of the TCP header: the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)
_SO_ATTACH_FILTER = 26


def most_connections() -> int:
    """How many connections leave enough files for all else, once as many may be open as the system
    allows: 1,024 is a usual soft limit, and a worker may have more clients than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    try:
        open_now = len(list(Path("/dev/fd").iterdir()))
    except OSError:
        open_now = 64
    return max(1, (soft - open_now) * 3 // 4)


def check(bind: str) -> None:
    """See that an address can be listened on, before processes are started for it.

    Raises:
        SettingsError: it cannot; why.
    """
    host, _, port = bind.rpartition(":")
    if bind.startswith("unix:"):
        return
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host.strip("[]"), int(port)))
    except OSError as exc:  # a system without IPv6 has no such socket
        reason = f"CONVSERVE_BIND is {bind!r}, where nothing can listen: {exc.strerror}."
        raise SettingsError(reason) from exc


def refuse_connections(listener: socket.socket) -> None:
    """Let the kernel drop what would begin a connection; the client tries again, and is refused."""
    code = b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(buffer))
    with contextlib.suppress(OSError):  # not Linux, or not TCP: the close is a little less clean
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def master_listens(listener: socket.socket) -> bool | None:
    """Whether only this worker stops (reload, replacement) and not the service; None: not Linux.

    The master closes its listeners before it stops the workers; nothing else tells them.
    """
    try:
        ours = Path(f"/proc/self/fd/{listener.fileno()}").readlink()
        files = list(Path(f"/proc/{os.getppid()}/fd").iterdir())
    except OSError:
        return None
    for file in files:
        with contextlib.suppress(OSError):  # closed since it was listed
            if file.readlink() == ours:
                return True
    return False
