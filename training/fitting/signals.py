"""SIGTERM and Ctrl-C: stop the command at once or, during a training step, after the step, so that
its work is kept.

Knows signals; knows nothing of training or of checkpoints.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from training.errors import Interrupted, Preempted


class Sigterm:
    """The state of the signal: ``received``, and held back or not; see ``SIGTERM``."""

    def __init__(self) -> None:
        self.received = False
        self._held = self._interrupted = self._raised = False

    def listen(self) -> None:
        """Handle the signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def hold(self) -> None:
        """Defer the signal: the current work must be finished."""
        self._held = True

    def release(self) -> None:
        """Stop deferring the signal; raise ``Preempted`` if it was received: in the meantime, or
        within foreign code that caught every exception."""
        self._held = False
        self._raised = self.received
        if self.received and self._interrupted:
            raise Interrupted("Stopped. The same command resumes from its checkpoint.")
        if self.received:
            raise Preempted("Stopped by SIGTERM. The same command resumes from its checkpoint.")

    @contextmanager
    def released_at_end(self) -> Iterator[None]:
        """Release the signal when the block ends, and raise ``Preempted`` if it was received; an
        error of the block takes precedence."""
        try:
            yield
        except Exception:
            if self._raised:  # within a layer or TensorFlow, which replaced it by an own error
                self.release()
            raise
        finally:
            self._held = False
        self.release()

    def _receive(self, number: int, _: object) -> None:
        interrupted = number == signal.SIGINT
        if interrupted and self._interrupted:  # the second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.received, self._interrupted = True, interrupted
        if not self._held:
            self.release()


SIGTERM = Sigterm()  # the one of this process
