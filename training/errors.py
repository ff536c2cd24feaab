"""Everything that stops a training command, each with the exit code of the process.

Knows nothing of Keras, of HTTP or of files; what those raise is translated where they are called.

TrainingError           1   the root
├── UsageError          2   a name or an option that this command does not have
│   └── RunMismatch     2   a run folder that belongs to another run
├── DataError           3   a data set that cannot be fetched, read or trusted
│   └── UnreadableImage 3   bytes that are no picture; a reader may count it and go on
├── ExportMismatch      1   the exported file does not answer as the network does
├── PublishFailed       1   a version that cannot be written
├── RunFailed           1   a run folder that cannot be read or written, or that is in use
├── Diverged            1   a loss that is no number any more
├── ServiceFailed       1   a running service that does not answer
├── BelowGate           4   the exported model is less accurate than its recipe demands
├── HostLost            75  another host is gone; the same command on all of them resumes
└── Preempted           75  stopped by SIGTERM; the same command resumes
    └── Interrupted    130  stopped by Ctrl-C; the same command resumes
"""

from typing import ClassVar


class TrainingError(Exception):
    """The root: a sentence for the user and the ``exit_code`` of the process."""

    exit_code: ClassVar[int] = 1


class UsageError(TrainingError):
    """A name or an option that this command does not have."""

    exit_code = 2


class DataError(TrainingError):
    """A data set that cannot be fetched, read or trusted."""

    exit_code = 3


class UnreadableImage(DataError):
    """Bytes that are no picture; a reader may count it and go on."""


class BelowGate(TrainingError):
    """The exported model is less accurate than its recipe demands."""

    exit_code = 4


class Preempted(TrainingError):
    """Stopped by a signal; the same command resumes (75 is EX_TEMPFAIL)."""

    exit_code = 75


class Interrupted(Preempted):
    """Stopped by hand; the same command resumes (130 is what shells tell of Ctrl-C)."""

    exit_code = 130


class HostLost(TrainingError):
    """Another host is gone; the same command on all of them resumes."""

    exit_code = 75

    def __init__(self) -> None:
        super().__init__(
            "Another host has ended or did not come: its log says why. The same command on every "
            "host goes on from the last checkpoint."
        )


class RunMismatch(UsageError):
    """A run folder that belongs to another run."""


class ExportMismatch(TrainingError):
    """The exported file does not answer as the network does."""


class PublishFailed(TrainingError):
    """A version that cannot be written."""


class RunFailed(TrainingError):
    """A run folder that cannot be read or written, or that is in use."""


class Diverged(TrainingError):
    """A loss that is no number any more."""


class ServiceFailed(TrainingError):
    """A running service that does not answer."""
