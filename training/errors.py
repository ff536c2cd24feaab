"""Everything that stops a training command, each with the exit code of the process.

Knows nothing of Keras, of HTTP or of files; what those raise is translated where they are called.

TrainingError           1   the root
├── UsageError          2   a name or an option that this command does not have
├── DataError           3   a data set that cannot be fetched, read or trusted
│   └── UnreadableImage 3   bytes that are no picture; a reader may count it and go on
├── BelowGate           4   the exported model is less accurate than its recipe demands
└── Preempted           75  stopped by a signal; the same command resumes
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
