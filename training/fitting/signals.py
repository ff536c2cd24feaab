"""SIGTERM, and Ctrl-C: end the command at once or, while a training step runs, at the end of the
step, so that its work is kept.

Knows signals; knows nothing of training or of checkpoints.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from training.errors import Interrupted, Preempted


class Sigterm:
    """Whether the signal has ``arrived``, and whether it is held back: see ``SIGTERM``."""

    def __init__(self) -> None:
        self.arrived = False
        self._held = self._by_hand = self._thrown = False

    def listen(self) -> None:
        """Take the signals from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._arrive)

    def hold(self) -> None:
        """Let the signal wait: what runs now must come to its end."""
        self._held = True

    def release(self) -> None:
        """Hold it no longer.

        Raises:
            Preempted: it has arrived meanwhile.
        """
        self._held = False
        self._thrown = self.arrived
        if self.arrived and self._by_hand:
            raise Interrupted("Stopped. The same command goes on from its checkpoint.")
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
        except Exception:
            if self._thrown:  # into a layer or TensorFlow, which made an error of their own of it
                self.release()
            raise
        finally:
            self._held = False
        self.release()

    def _arrive(self, number: int, _: object) -> None:
        by_hand = number == signal.SIGINT
        if by_hand and self._by_hand:  # once more: whoever does that does not wait
            raise KeyboardInterrupt
        self.arrived, self._by_hand = True, by_hand
        if not self._held:
            self.release()


SIGTERM = Sigterm()  # of this process: it has but one
