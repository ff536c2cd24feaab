"""Limits of sockets: how many may be open, and if an address can be listened on.

Knows the operating system; knows nothing of gunicorn.
"""

import contextlib
import resource
import socket
from pathlib import Path

from serving.errors import SettingsError


def most_connections() -> int:
    """Raise the limit of open files as far as allowed, and return three quarters of what is left.

    1,024 is a usual soft limit; a worker may have more clients than that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS allows less than it reports
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    try:
        open_now = len(list(Path("/dev/fd").iterdir()))
    except OSError:
        open_now = 64
    return max(1, (soft - open_now) * 3 // 4)


def check(bind: str) -> None:
    """Raise SettingsError, with the reason, if an address cannot be listened on."""
    host, _, port = bind.rpartition(":")
    if bind.startswith("unix:"):
        return
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host.strip("[]"), int(port)))
    except OSError as exc:  # also if the system has no IPv6
        reason = f"Cannot listen on {bind!r}, the value of CONVSERVE_BIND: {exc.strerror}."
        raise SettingsError(reason) from exc
