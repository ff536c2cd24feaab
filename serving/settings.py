"""Every setting of the service in one frozen table: type, default and a sentence each.

Knows the environment; knows nothing of models or of HTTP.
Reading is strict: a name that is not here, or a value that cannot be parsed, stops the start.
"""

import dataclasses
import difflib
import math
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from serving.cpus import cores
from serving.errors import SettingsError

PREFIX = "CONVSERVE_"

# What Kubernetes injects into every pod for a Service called "convserve" or "convserve-…".
_KUBERNETES_NAMES = re.compile(
    r"CONVSERVE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_BIND = re.compile(r"unix:.+|(\[[0-9A-Fa-f:.]+\]|[^\s:,/\[\]]+):(?P<port>[0-9]{1,5})")
_DATABASE = re.compile(r"sqlite:///.|postgresql\+psycopg://")
SHORTEST_KEY = 16  # characters of a key for ids
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://.*")


@dataclass(frozen=True)
class About:
    """What a setting means, how small and how large a number may be, and which words a word."""

    sentence: str
    least: float | None = None
    most: float = math.inf
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What an operator may choose; ``Settings()`` is the service with every default."""

    bind: Annotated[str, About("Address and port to listen on.")] = "0.0.0.0:8000"
    models: Annotated[Path, About("Folder of the published models.")] = Path("models")
    workers: Annotated[
        int,
        About(
            "Worker processes; 0 means the processor quota divided by `INTRA_THREADS`, or one where"
            " a GPU is used.",
            0,
            most=256,
        ),
    ] = 0
    requests: Annotated[
        int,
        About("Predictions, their bodies there, that one worker holds before it answers 503.", 1),
    ] = 256
    threads: Annotated[
        int, About("Threads of one worker for descriptions and quality, beside its event loop.", 1)
    ] = 4
    intra_threads: Annotated[int, About("Processor threads of one inference.", 1)] = 1
    device: Annotated[
        str,
        About(
            "`cpu`; `cuda`, without which `/readyz` answers 503; or `auto`: CUDA where it works.",
            choices=("cpu", "cuda", "auto"),
        ),
    ] = "cpu"
    precision: Annotated[
        str,
        About(
            "`float32`; `int8` for versions published in it, float32 for the others; or `auto`:"
            " int8 for those, unless float32 is faster on this machine.",
            choices=("float32", "int8", "auto"),
        ),
    ] = "auto"
    arena: Annotated[
        str,
        About(
            "Whether onnxruntime keeps the memory of its largest batch (`on`) or asks for it anew"
            " for each (`off`).",
            choices=("on", "off"),
        ),
    ] = "on"
    optimisation: Annotated[
        str,
        About(
            "How far onnxruntime rewrites a graph when it loads it.",
            choices=("all", "extended", "basic"),
        ),
    ] = "all"
    lanes: Annotated[
        int, About("Long inferences that one worker runs at once, beside its event loop.", 1)
    ] = 1
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
    max_body_bytes: Annotated[
        int,
        About(
            "Largest request body, in bytes; one worker holds eight times as many, arriving or"
            " there, before it answers 503.",
            1,
        ),
    ] = 32 * 1024 * 1024
    max_images: Annotated[int, About("Most images in one request.", 1, most=65535)] = 64
    max_pixels: Annotated[
        int, About("Most pixels in one image, judged before it is decoded.", 1)
    ] = 50_000_000
    poll_seconds: Annotated[
        float,
        About(
            "Seconds between two looks at what is published; 0 means never, but SIGHUP looks at"
            " once.",
            0,
        ),
    ] = 2.0
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
    feedback_keys: Annotated[
        str,
        About(
            "Keys that sign the ids of predictions, with commas between: the first signs, all are"
            f" accepted. Each has {SHORTEST_KEY} characters at least; all replicas need the same."
            " Without any, ids end with this run."
        ),
    ] = ""
    feedback_url: Annotated[
        str,
        About(
            "The database of labels: `sqlite:///<file>`, or `postgresql+psycopg://…` for several"
            " replicas."
        ),
    ] = "sqlite:///feedback.db"
    feedback_days: Annotated[
        float, About("Days for which a prediction can be labelled.", 0.001)
    ] = 30.0
    replica: Annotated[
        str,
        About(
            "The name under which this replica counts the labels that it writes: another than those"
            " of all that run beside it; empty means the host's."
        ),
    ] = ""
    keep_images: Annotated[
        float, About("Share of the predicted images that is kept in files, 0 to 1.", 0, most=1)
    ] = 0.0
    keep_folder: Annotated[Path, About("Folder of the kept images.")] = Path("images")
    keep_megabytes: Annotated[
        int, About("Size that it may have; beyond it the oldest images go.", 1)
    ] = 1000
    keep_days: Annotated[float, About("Days after which a kept image goes.", 0)] = 30.0
    log_level: Annotated[
        str,
        About(
            "`debug`, `info` (one line for every request), `warning` or `error`.",
            choices=("debug", "info", "warning", "error"),
        ),
    ] = "info"

    def __post_init__(self) -> None:
        bind = _BIND.fullmatch(self.bind)
        if bind is None or int(bind["port"] or 0) > 65535:
            raise SettingsError(
                f"{PREFIX}BIND is {self.bind!r}. Expected <host>:<port>, [<IPv6>]:<port> or"
                " unix:<path>."
            )
        for row in rows():
            value = getattr(self, row.field)
            if row.about.choices and value not in row.about.choices:
                *others, last = row.about.choices
                raise SettingsError(
                    f"{row.name} is {value!r}. Expected {', '.join(others)} or {last}."
                )
            if row.about.least is not None and not _within(value, row.about):
                most = "" if row.about.most == math.inf else f", at most {row.about.most}"
                raise SettingsError(
                    f"{row.name} is {value}. Expected a finite number, at least"
                    f" {row.about.least}{most}."
                )
        self._check_feedback()

    def _check_feedback(self) -> None:
        if not _DATABASE.match(self.feedback_url):
            raise SettingsError(
                f"{PREFIX}FEEDBACK_URL begins with {self.feedback_url[:10]!r}. Expected"
                " sqlite:///<file> or postgresql+psycopg://…."
            )
        if short := [key for key in self.keys if len(key) < SHORTEST_KEY]:
            raise SettingsError(
                f"{PREFIX}FEEDBACK_KEYS holds a key of {len(short[0])} characters. Expected"
                f" {SHORTEST_KEY} at least."
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
    def keys(self) -> list[str]:
        """Those of the ids, the one that signs first."""
        return [key.strip() for key in self.feedback_keys.split(",") if key.strip()]

    @property
    def counts_as(self) -> str:
        """The name under which this replica counts labels."""
        return self.replica or socket.gethostname()

    @property
    def processors(self) -> int:
        """How many processors each worker has for itself."""
        return max(1, cores() // self.processes)


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


def _within(value: float, about: About) -> bool:
    return about.least is not None and about.least <= value <= about.most and value < math.inf


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


def table() -> str:
    """The settings as a Markdown table: for the README and for ``python -m serving --help``."""
    lines = ["| Setting | Default | Meaning |", "| --- | --- | --- |"]
    lines += [f"| `{row.name}` | `{row.default}` | {row.about.sentence} |" for row in rows()]
    return "\n".join(lines)
