"""What the kernel is asked about the sockets that listen, or told.

Knows Linux, and does without where it is not Linux; knows nothing of gunicorn.
"""

import contextlib
import ctypes
import os
import socket
import struct
from pathlib import Path

# A classic BPF program: drop a TCP segment with SYN and without ACK, pass any other.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load byte 13 of the TCP header: the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)
_SO_ATTACH_FILTER = 26


def bound_stalls(listener: socket.socket, *, seconds: int) -> None:
    """Connections inherit the listener's receive timeout: gthread gives a request none."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, 0))


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
