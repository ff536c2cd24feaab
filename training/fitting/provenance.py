"""The code that trains or exports: its git revision, its hash, and the versions of its libraries.

Knows git and installed packages; knows nothing of runs or of what the code does.
"""

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BACKENDS = {"tensorflow": ("tensorflow",), "jax": ("jax", "jaxlib")}  # the packages of each
LIBRARIES = ("keras", "numpy", "pillow")  # that training computes with, beside a backend
PACKAGE = Path(__file__).parents[1]


def source(backend: str, libraries: Sequence[str] = LIBRARIES) -> dict[str, Any]:
    """Return the time, the revision, the hash of the code and the versions of the libraries."""
    versions = {"python": platform.python_version()}
    for name in (*libraries, *BACKENDS[backend]):
        with suppress(PackageNotFoundError):  # a build with another name, as tensorflow-cpu
            versions[name] = version(name)
    return {"at": now(), "revision": revision(), "code": code(), "versions": versions}


def now() -> str:
    """Return the time: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def revision() -> str:
    """Return ``SOURCE_REVISION``, which an image is built with, else the git revision of the
    working tree, with `-dirty` if it differs, else an empty string."""
    return os.environ.get("SOURCE_REVISION") or _described()


@cache
def _described() -> str:
    """Ask git once: what this process runs was read at its start."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=PACKAGE, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.decode().strip()


@cache
def code() -> str:
    """Return a hash of the source files of the package, which needs no git."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:16]


def facts(source: Mapping[str, Any]) -> dict[str, str]:
    """Return what decides the results of training: the hash of the code and each version."""
    return {"code": source["code"], **source["versions"]}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return in words how the facts of two sources differ, or an empty string."""
    old, new = facts(before), facts(after)
    return ", ".join(
        f"{name} {old.get(name, 'none')}, now {new.get(name, 'none')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    )
