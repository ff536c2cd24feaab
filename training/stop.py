"""SIGTERM: end the command at once or, while a training step runs, at the end of the step, so that
its work is kept.

Knows signals; knows nothing of training or of checkpoints.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from training.errors import Preempted


class Sigterm:
    """Whether the signal has ``arrived``, and whether it is held back: see ``SIGTERM``."""

    def __init__(self) -> None:
        self.arrived = False
        self._held = False

    def listen(self) -> None:
        """Take the signal from now on."""
        signal.signal(signal.SIGTERM, self._arrive)

    def hold(self) -> None:
        """Let the signal wait: what runs now must come to its end."""
        self._held = True

    def release(self) -> None:
        """Hold it no longer.

        Raises:
            Preempted: it has arrived meanwhile.
        """
        self._held = False
        if self.arrived:
            raise Preempted("Stopped by SIGTERM. The same command goes on from its checkpoint.")

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hold it no longer when the block ends. Of an error in it, the error is told.

        Raises:
            Preempted: it has arrived meanwhile.
        """
        try:
            yield
        except Preempted:
            self.release()  # in our own words: Keras adds to those of what a layer raised
            raise
        except BaseException:
            self._held = False
            raise
        self.release()

    def _arrive(self, *_: object) -> None:
        self.arrived = True
        if not self._held:
            self.release()


SIGTERM = Sigterm()  # of this process: it has but one
