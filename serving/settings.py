"""Every setting of the service in one frozen table: type, default and a sentence each.

Knows the environment and the machine's processor quota; knows nothing of models or of HTTP.
Reading is strict: a name that is not here, or a value that cannot be parsed, stops the start.
"""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

PREFIX = "CONVSERVE_"

# What Kubernetes injects into every pod for a Service called "convserve" or "convserve-…".
_KUBERNETES_NAMES = re.compile(
    r"CONVSERVE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_BIND = re.compile(r"unix:.+|(\[[0-9A-Fa-f:.]+\]|[^\s:,/\[\]]+):(?P<port>[0-9]{1,5})")
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://.*")


class SettingsError(ValueError):
    """A setting is unknown or its value is not what it should be; the service must not start."""


@dataclass(frozen=True)
class About:
    """What a setting means and, for a number, the least it may be."""

    sentence: str
    least: float | None = None


@dataclass(frozen=True)
class Settings:
    """What an operator may choose; ``Settings()`` is the service with every default."""

    bind: Annotated[str, About("Address and port to listen on.")] = "0.0.0.0:8000"
    models: Annotated[Path, About("Folder of the published models.")] = Path("models")
    workers: Annotated[
        int,
        About("Worker processes; 0 means the processor quota divided by `INTRA_THREADS`.", 0),
    ] = 0
    threads: Annotated[
        int, About("Requests that one worker answers at once; an eighth is kept for probes.", 4)
    ] = 64
    intra_threads: Annotated[int, About("Processor threads of one inference.", 1)] = 1
    lanes: Annotated[int, About("Inferences that one worker runs at once.", 1)] = 1
    queue: Annotated[
        int, About("Images that one worker holds, waiting or running, before it answers 503.", 1)
    ] = 256
    timeout_ms: Annotated[
        int,
        About(
            "Milliseconds before a request that still waits is answered 504; the header"
            " `X-Request-Timeout-Ms` can only shorten it.",
            1,
        ),
    ] = 10_000
    max_body_bytes: Annotated[int, About("Largest request body, in bytes.", 1)] = 32 * 1024 * 1024
    max_images: Annotated[int, About("Most images in one request.", 1)] = 64
    max_pixels: Annotated[
        int, About("Most pixels in one image, judged before it is decoded.", 1)
    ] = 50_000_000
    drain_seconds: Annotated[
        float,
        About(
            "Seconds between SIGTERM and the end of accepting connections, with `/readyz` at 503,"
            " for a load balancer to notice.",
            0,
        ),
    ] = 0.0
    grace_seconds: Annotated[
        float, About("Seconds that accepted requests have to finish after that.", 1)
    ] = 30.0
    log_level: Annotated[
        str, About("`debug`, `info` (one line for every request), `warning` or `error`.")
    ] = "info"

    def __post_init__(self) -> None:
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise SettingsError(
                f"{PREFIX}LOG_LEVEL is {self.log_level!r}. Expected debug, info, warning or error."
            )
        bind = _BIND.fullmatch(self.bind)
        if bind is None or int(bind["port"] or 0) > 65535:
            raise SettingsError(
                f"{PREFIX}BIND is {self.bind!r}. Expected <host>:<port>, [<IPv6>]:<port> or"
                " unix:<path>."
            )
        for row in rows():
            value = getattr(self, row.field)
            if row.about.least is not None and not row.about.least <= value < math.inf:
                raise SettingsError(
                    f"{row.name} is {value}. Expected a finite number, at least {row.about.least}."
                )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read every ``CONVSERVE_`` variable.

        Raises:
            SettingsError: a variable is unknown or does not parse.
        """
        known = {row.name: row for row in rows()}
        values: dict[str, Any] = {}
        for name, text in environ.items():
            if not name.startswith(PREFIX) or _from_kubernetes(name, text):
                continue
            if name not in known:
                raise SettingsError(_unknown(name, sorted(known)))
            values[known[name].field] = _parse(name, text, known[name].kind)
        return cls(**values)

    @property
    def processes(self) -> int:
        """How many workers to start, after ``0`` was replaced by the processor quota."""
        return self.workers or max(1, cores() // self.intra_threads)

    @property
    def places(self) -> int:
        """Predictions that one worker takes at once: fewer than its threads, for the probes."""
        return self.threads - max(2, self.threads // 8)


@dataclass(frozen=True)
class Row:
    """One setting: its variable, its field, its type and what it means."""

    name: str
    field: str
    kind: type[str] | type[int] | type[float] | type[Path]
    default: object
    about: About


def rows() -> list[Row]:
    """The table of all settings, in the order of the class."""
    hints = get_type_hints(Settings, include_extras=True)
    return [
        Row(
            name=PREFIX + field.name.upper(),
            field=field.name,
            kind=hints[field.name].__origin__,
            default=field.default,
            about=hints[field.name].__metadata__[0],
        )
        for field in dataclasses.fields(Settings)
    ]


def _from_kubernetes(name: str, text: str) -> bool:
    if name.endswith("_PORT"):
        return bool(_KUBERNETES_PORT.fullmatch(text) or _KUBERNETES_NAMES.fullmatch(name))
    return bool(_KUBERNETES_NAMES.fullmatch(name))


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"No setting named {name}.{hint} Known settings: {', '.join(known)}."


def _parse(
    name: str, text: str, kind: type[str] | type[int] | type[float] | type[Path]
) -> str | float | Path:
    if kind in (str, Path) and not text.strip():
        raise SettingsError(f"{name} is empty. Expected a value, or no such variable.")
    try:
        return kind(text.strip())
    except ValueError as exc:
        expected = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{name} is {text!r}. Expected {expected}.") from exc


def cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Processors this process may use: its affinity, or its cgroup v2 quota where that is less.

    onnxruntime, like most libraries, counts the processors of the host and ignores the quota.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    found = [float(len(affinity(0)) if affinity else os.cpu_count() or 1)]
    for folder in _own_groups(groups, own):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if quota.isdigit():
            found.append(int(quota) / int(period))
    return max(1, int(min(found)))


def _own_groups(groups: Path, own: Path) -> list[Path]:
    """The folders of this process's cgroup and of all that enclose it."""
    path = next((line[3:] for line in _read(own).splitlines() if line.startswith("0::")), "/")
    folder = groups / path.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(groups))]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def table() -> str:
    """The settings as a Markdown table: for the README and for ``python -m serving --help``."""
    lines = ["| Setting | Default | Meaning |", "| --- | --- | --- |"]
    lines += [f"| `{row.name}` | `{row.default}` | {row.about.sentence} |" for row in rows()]
    return "\n".join(lines)
