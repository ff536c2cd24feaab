"""Every setting of the service in one frozen table: type, default and a sentence each.

Knows the environment and the machine's processor quota; knows nothing of models or of HTTP. Reading is
strict: a name that is not here, or a value that cannot be parsed, stops the start.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "CONVSERVE_"

# What Kubernetes injects into every pod for a Service called "convserve" or "convserve-…".
_KUBERNETES_NAMES = re.compile(
    r"CONVSERVE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://.*")


class SettingsError(ValueError):
    """A setting is unknown or its value is not what it should be; the service must not start."""


def _setting(default: Any, about: str, *, least: float | None = None) -> Any:
    """One row of the table: its default, its sentence and, for a number, its smallest value."""
    return dataclasses.field(default=default, metadata={"about": about, "least": least})


@dataclass(frozen=True)
class Settings:
    """What an operator may choose; ``Settings()`` is the service with every default."""

    bind: str = _setting("0.0.0.0:8000", "Address and port to listen on.")  # noqa: S104
    models: Path = _setting(Path("models"), "Folder of the published models.")
    workers: int = _setting(
        0, "Worker processes; 0 means the processor quota divided by `INTRA_THREADS`.", least=0
    )
    threads: int = _setting(
        64, "Requests that one worker answers at once; an eighth is kept for probes.", least=4
    )
    intra_threads: int = _setting(1, "Processor threads of one inference.", least=1)
    lanes: int = _setting(1, "Inferences that one worker runs at once.", least=1)
    queue: int = _setting(
        256, "Images that one worker holds, waiting or running, before it answers 503.", least=1
    )
    timeout_ms: int = _setting(
        10_000,
        "Milliseconds before a request that still waits is answered 504; the header"
        " `X-Request-Timeout-Ms` can only shorten it.",
        least=1,
    )
    max_body_bytes: int = _setting(32 * 1024 * 1024, "Largest request body, in bytes.", least=1)
    max_images: int = _setting(64, "Most images in one request.", least=1)
    max_pixels: int = _setting(
        50_000_000, "Most pixels in one image, judged before it is decoded.", least=1
    )
    drain_seconds: float = _setting(
        0.0,
        "Seconds between SIGTERM and the end of accepting connections, with `/readyz` at 503, for"
        " a load balancer to notice.",
        least=0,
    )
    grace_seconds: float = _setting(
        30.0, "Seconds that accepted requests have to finish after that.", least=1
    )
    log_level: str = _setting(
        "info", "`debug`, `info` (one line for every request), `warning` or `error`."
    )

    def __post_init__(self) -> None:
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise SettingsError(
                f"{PREFIX}LOG_LEVEL is {self.log_level!r}. Expected debug, info, warning or error."
            )
        for field in dataclasses.fields(self):
            least = field.metadata["least"]
            if least is not None and getattr(self, field.name) < least:
                raise SettingsError(
                    f"{_variable(field)} is {getattr(self, field.name)}. Expected at least {least}."
                )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read every ``CONVSERVE_`` variable.

        Raises:
            SettingsError: a variable is unknown or does not parse.
        """
        fields = {_variable(field): field for field in dataclasses.fields(cls)}
        values = {}
        for name, text in environ.items():
            if not name.startswith(PREFIX) or _from_kubernetes(name, text):
                continue
            if name not in fields:
                raise SettingsError(_unknown(name, sorted(fields)))
            values[fields[name].name] = _parse(name, text, type(fields[name].default))
        return cls(**values)

    @property
    def processes(self) -> int:
        """How many workers to start, after ``0`` was replaced by the processor quota."""
        return self.workers or max(1, cores() // self.intra_threads)

    @property
    def places(self) -> int:
        """Predictions that one worker takes at once: fewer than its threads, for the probes."""
        return self.threads - max(2, self.threads // 8)


def _variable(field: "dataclasses.Field[Any]") -> str:
    return PREFIX + field.name.upper()


def _from_kubernetes(name: str, text: str) -> bool:
    if name.endswith("_PORT"):
        return bool(_KUBERNETES_PORT.fullmatch(text) or _KUBERNETES_NAMES.fullmatch(name))
    return bool(_KUBERNETES_NAMES.fullmatch(name))


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"No setting named {name}.{hint} Known settings: {', '.join(known)}."


def _parse(name: str, text: str, kind: type[Any]) -> Any:
    try:
        return kind(text.strip() or _refuse_empty())
    except ValueError as exc:
        expected = {int: "a whole number", float: "a number"}.get(kind, "a text that is not empty")
        raise SettingsError(f"{name} is {text!r}. Expected {expected}.") from exc


def _refuse_empty() -> str:
    raise ValueError


def cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Processors this process may use: its affinity, or its cgroup v2 quota where that is less.

    onnxruntime, like most libraries, counts the processors of the host and ignores the quota.
    """
    found = [float(len(os.sched_getaffinity(0)))]
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
    """The settings as a Markdown table: the one of the README and of ``python -m serving --help``."""
    rows = ["| Setting | Default | Meaning |", "| --- | --- | --- |"]
    rows += [
        f"| `{_variable(field)}` | `{field.default}` | {field.metadata['about']} |"
        for field in dataclasses.fields(Settings)
    ]
    return "\n".join(rows)
