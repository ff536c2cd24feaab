"""Every setting of the service in one frozen table: its type, its default and a sentence.

Knows the environment; knows nothing of models or HTTP. Reading is strict: an unknown name, or a
value that does not parse, stops the start.
"""

import dataclasses
import difflib
import math
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from serving.cpus import cores
from serving.errors import SettingsError

PREFIX = "CONVSERVE_"
SHORTEST_KEY = 16  # characters of a key that signs ids

_BIND = re.compile(r"unix:.+|(\[[0-9A-Fa-f:.]+\]|[^\s:,/\[\]]+):(?P<port>[0-9]{1,5})")
_DATABASE = re.compile(r"sqlite:///.|postgresql\+psycopg://")
# What Kubernetes injects into every pod for a Service called "convserve" or "convserve-…".
_KUBERNETES = re.compile(
    r"CONVSERVE_(\w+_)?((SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)="
    r"|PORT=(tcp|udp|sctp)://)"
)

Value = TypeVar("Value", str, int, float, Path)


def _setting(default: Value, sentence: str, **bounds: Any) -> Value:
    """Return a field with its default, its sentence and the ``bounds`` of its ``Row``."""
    return dataclasses.field(default=default, metadata={"sentence": sentence, **bounds})


@dataclass(frozen=True)
class Settings:
    """The operator's choices; ``Settings()`` is the service with every default."""

    bind: str = _setting("0.0.0.0:8000", "Address and port to listen on.")
    models: Path = _setting(Path("models"), "Folder of the published models.")
    workers: int = _setting(
        0,
        "Number of worker processes; 0 means the CPU quota divided by `INTRA_THREADS`, or one on a"
        " GPU.",
        least=0,
        most=256,
    )
    requests: int = _setting(
        256,
        "Maximum number of fully received requests per worker, of predictions and of feedback each;"
        " beyond it, 503.",
    )
    threads: int = _setting(
        4,
        "Threads per worker for model descriptions and quality, beside its event loop; beyond 16"
        " requests per thread, 503.",
    )
    intra_threads: int = _setting(1, "Threads per inference.")
    device: str = _setting(
        "cpu",
        "`cpu`; `cuda`, where `/readyz` answers 503 if CUDA does not work; or `auto`: CUDA if it"
        " works.",
        choices=("cpu", "cuda", "auto"),
    )
    precision: str = _setting(
        "auto",
        "`float32`; `int8`, with float32 for versions that were not published in int8; or `auto`:"
        " int8 unless float32 is faster on this machine.",
        choices=("float32", "int8", "auto"),
    )
    arena: str = _setting(
        "on",
        "`on`: onnxruntime keeps the memory of its largest batch; `off`: it allocates memory for"
        " each batch.",
        choices=("on", "off"),
    )
    optimisation: str = _setting(
        "all",
        "Level of onnxruntime's graph optimisation when it loads a model.",
        choices=("all", "extended", "basic"),
    )
    lanes: int = _setting(
        1, "Maximum number of long inferences at once per worker, beside its event loop."
    )
    queue: int = _setting(
        256, "Maximum number of images per worker, waiting or running; beyond it, 503."
    )
    timeout_ms: int = _setting(
        10_000,
        "Milliseconds until a waiting request is answered 504; the header `X-Request-Timeout-Ms`"
        " can only shorten it.",
    )
    max_body_bytes: int = _setting(
        32 * 1024 * 1024,
        "Largest request body, in bytes. For the bodies of predictions a worker holds at most eight"
        " times as many bytes, for those of feedback once as many, and an eighth more for bodies of"
        " up to 256 KiB; beyond it, 503.",
    )
    max_images: int = _setting(64, "Maximum number of images per request.", most=65535)
    max_pixels: int = _setting(
        50_000_000, "Maximum number of pixels per image, checked before decoding."
    )
    poll_seconds: float = _setting(
        2.0, "Seconds between two scans of the models folder; 0 means on SIGHUP only.", least=0
    )
    drain_seconds: float = _setting(
        0.0,
        "Seconds between SIGTERM and the end of accepting connections, with `/readyz` at 503, for a"
        " load balancer to react.",
        least=0,
    )
    grace_seconds: float = _setting(30.0, "Seconds that accepted requests then have to finish.")
    hang_seconds: int = _setting(
        30,
        "Seconds without a heartbeat after which a worker is replaced. Workers give one every"
        " second, also while they load models.",
        least=3,
    )
    feedback_keys: str = _setting(
        "",
        "Comma-separated keys that sign prediction ids: the first signs, all are accepted. At least"
        f" {SHORTEST_KEY} characters each, the same on all replicas. If empty, ids are valid only"
        " until this run ends.",
    )
    feedback_url: str = _setting(
        "sqlite:///feedback.db",
        "Database of labels: `sqlite:///<file>`, or `postgresql+psycopg://…` for several replicas.",
    )
    feedback_days: float = _setting(
        30.0, "Days during which a prediction can be labelled.", least=0.001
    )
    replica: str = _setting(
        "",
        "Name under which this replica counts the labels that it writes, unique among the running"
        " replicas; empty means the host name.",
    )
    keep_images: float = _setting(
        0.0, "Share of the predicted images that is kept in files, 0 to 1.", least=0, most=1
    )
    keep_folder: Path = _setting(Path("images"), "Folder of the kept images.")
    keep_megabytes: int = _setting(
        1000, "Maximum size of that folder; beyond it, the oldest images are deleted."
    )
    keep_days: float = _setting(30.0, "Days after which a kept image is deleted.", least=0)
    log_level: str = _setting(
        "info",
        "`debug`, `info` (one line per request), `warning` or `error`.",
        choices=("debug", "info", "warning", "error"),
    )

    def __post_init__(self) -> None:
        bind = _BIND.fullmatch(self.bind)
        if bind is None or int(bind["port"] or 0) > 65535:
            raise SettingsError(
                f"{PREFIX}BIND is {self.bind!r}. Expected <host>:<port>, [<IPv6>]:<port> or"
                " unix:<path>."
            )
        for row in rows():
            row.check(getattr(self, row.field))
        if not _DATABASE.match(self.feedback_url):
            raise SettingsError(
                f"{PREFIX}FEEDBACK_URL begins with {self.feedback_url[:10]!r}. Expected"
                " sqlite:///<file> or postgresql+psycopg://…."
            )
        if short := [key for key in self.keys if len(key) < SHORTEST_KEY]:
            raise SettingsError(
                f"{PREFIX}FEEDBACK_KEYS holds a key of {len(short[0])} characters. Expected at"
                f" least {SHORTEST_KEY}."
            )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read every ``CONVSERVE_`` variable, or raise SettingsError: one is unknown or wrong."""
        known = {row.name: row for row in rows()}
        values: dict[str, Any] = {}
        for name, text in environ.items():
            if not name.startswith(PREFIX) or _KUBERNETES.match(f"{name}={text}"):
                continue
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {close[0]}? " if close else ""
                all_known = ", ".join(sorted(known))
                raise SettingsError(f"No setting named {name}. {hint}Known settings: {all_known}.")
            values[known[name].field] = known[name].parse(text)
        return cls(**values)

    @property
    def processes(self) -> int:
        """The number of workers to start, with 0 replaced by the CPU quota."""
        return self.workers or max(1, cores() // self.intra_threads)

    @property
    def processors(self) -> int:
        """The number of processors per worker."""
        return max(1, cores() // self.processes)

    @property
    def keys(self) -> list[str]:
        """The keys of prediction ids; the first one signs."""
        return [key.strip() for key in self.feedback_keys.split(",") if key.strip()]

    @property
    def replica_name(self) -> str:
        """The name under which this replica counts labels."""
        return self.replica or socket.gethostname()


@dataclass(frozen=True)
class Row:
    """One setting: its variable, its field, its meaning and the values that it accepts."""

    name: str
    field: str
    default: Any  # a string, a number or a path: its type is that of the setting
    sentence: str
    least: float = 1
    most: float = math.inf
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> str | float | Path:
        """Return a text in the type of the default, or raise SettingsError if it is none."""
        if isinstance(self.default, str | Path) and not text.strip():
            raise SettingsError(f"{self.name} is empty. Expected a value, or no such variable.")
        kind: type[str | float | Path] = type(self.default)
        try:
            return kind(text.strip())
        except ValueError as exc:
            expected = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{self.name} is {text!r}. Expected {expected}.") from exc

    def check(self, value: Any) -> None:
        """Raise SettingsError if the value is not among the choices or within the bounds."""
        if self.choices and value not in self.choices:
            *others, last = self.choices
            raise SettingsError(
                f"{self.name} is {value!r}. Expected {', '.join(others)} or {last}."
            )
        if isinstance(self.default, str | Path):
            return
        if not self.least <= value <= self.most or value == math.inf:
            most = "" if self.most == math.inf else f", at most {self.most}"
            raise SettingsError(
                f"{self.name} is {value}. Expected a finite number, at least {self.least}{most}."
            )


def rows() -> list[Row]:
    """Return all settings, in the order of the class."""
    return [
        Row(PREFIX + field.name.upper(), field.name, field.default, **field.metadata)
        for field in dataclasses.fields(Settings)
    ]


def table() -> str:
    """Return the settings as a Markdown table, for the docs and ``python -m serving --help``."""
    lines = ["| Setting | Default | Meaning |", "| --- | --- | --- |"]
    lines += [f"| `{row.name}` | `{row.default}` | {row.sentence} |" for row in rows()]
    return "\n".join(lines)
