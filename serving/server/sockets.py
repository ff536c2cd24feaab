"""What the kernel is asked about the sockets that listen, or told.

Knows Linux, and does without where it is not Linux; knows nothing of gunicorn.
"""

import contextlib
import resource
import socket
from pathlib import Path

from serving.errors import SettingsError


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
