"""Every error that stops a training command, each with the exit code of the process.

Knows nothing of Keras, HTTP or files; foreign exceptions are translated where they are raised,
an ``OSError`` by ``translated``.

TrainingError           1   the root
├── UsageError          2   an unknown name or option
│   └── RunMismatch     2   a run folder that belongs to another run
├── DataError           3   a data set that cannot be fetched, read or trusted
│   └── UnreadableImage 3   bytes that are not an image; a reader may count it and continue
├── ExportMismatch      1   the exported file and the network answer differently
├── PublishFailed       1   a version that cannot be written
├── RunFailed           1   a run folder that cannot be read or written, or that is in use
├── Diverged            1   a loss that is not a finite number
├── ServiceFailed       1   a running service that fails to answer
├── BelowGate           4   an exported model below its recipe's accuracy gate
└── HostLost            75  another host is lost; the same command on all of them resumes

Preempted               75  stopped by SIGTERM; the same command resumes
└── Interrupted        130  stopped by Ctrl-C; the same command resumes

``Preempted`` is no ``Exception``, as ``KeyboardInterrupt`` is none: converters and quantisers
catch every ``Exception`` and continue.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class TrainingError(Exception):
    """The root: a sentence for the user and the ``exit_code`` of the process."""

    exit_code: ClassVar[int] = 1


class UsageError(TrainingError):
    """An unknown name or option."""

    exit_code = 2


class RunMismatch(UsageError):
    """A run folder that belongs to another run."""


class DataError(TrainingError):
    """A data set that cannot be fetched, read or trusted."""

    exit_code = 3


class UnreadableImage(DataError):
    """Bytes that are not an image; a reader may count it and continue."""


class ExportMismatch(TrainingError):
    """The exported file and the network answer differently."""


class PublishFailed(TrainingError):
    """A version that cannot be written."""


class RunFailed(TrainingError):
    """A run folder that cannot be read or written, or that is in use."""


class Diverged(TrainingError):
    """A loss that is not a finite number."""


class ServiceFailed(TrainingError):
    """A running service that fails to answer."""


class BelowGate(TrainingError):
    """An exported model below its recipe's accuracy gate."""

    exit_code = 4


class Preempted(BaseException):
    """Stopped by a signal; the same command resumes (75 is EX_TEMPFAIL)."""

    exit_code: ClassVar[int] = 75


class Interrupted(Preempted):
    """Stopped by Ctrl-C; the same command resumes (130 is the shells' code for SIGINT)."""

    exit_code = 130


class HostLost(TrainingError):
    """Another host is lost; the same command on all of them resumes."""

    exit_code = 75

    def __init__(self) -> None:
        super().__init__(
            "Another host has ended or never joined; its log says why. The same command on every "
            "host resumes from the last checkpoint."
        )


@contextmanager
def translated(error: type[TrainingError], what: str, expected: str = "") -> Iterator[None]:
    """Raise ``error`` instead of an OSError of the block: ``<what>: <reason>. <expected>``."""
    try:
        yield
    except OSError as exc:
        raise error(f"{what}: {exc.strerror or exc}. {expected}".rstrip()) from exc
