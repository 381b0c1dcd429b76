"""Signals that ask a run to stop: it saves at the next step boundary and ends.

SIGTERM is what schedulers send before they take a machine away, SIGUSR1 what SLURM can be told to
send before a time limit, SIGINT is Ctrl-C.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from purenoise_jax.errors import Stopped

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
)
INTERRUPTED, TERMINATED = 130, 143


class StopRequest:
    """Listens for signals for as long as it is entered.

    At first a signal ends the run at once, as there is nothing to lose yet. Within `deferred` it is
    only written down, and whoever has something to save asks `requested`. A second SIGINT ends the
    run at once wherever it is. Signals reach the main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._deferred = False
        self._interrupts = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals wait in here until they are asked for, or until the end of it."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before
        if not before:
            self.poll()

    def poll(self) -> None:
        """Ends the run if a signal has come.

        Raises:
          Stopped: with the exit code that goes with the signal.
        """
        if self._signal is not None:
            raise self.stopped("nothing was computed since the last checkpoint")

    def stopped(self, what: str) -> Stopped:
        """The exception that ends the run.

        Args:
          what: became of it, in words.
        """
        # Another process may have got the signal, and this one have heard of it.
        number = signal.SIGTERM if self._signal is None else self._signal
        code = INTERRUPTED if number == signal.SIGINT else TERMINATED
        name = signal.Signals(number).name
        return Stopped(f"stopped by {name}: {what}; the same command continues", code)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._deferred and self._interrupts == 1:
                # Not through a console, in the middle of whose work this may be.
                os.write(2, b"\nstopping after this step; once more leaves at once\n")
        if self._interrupts > 2:
            os._exit(INTERRUPTED)
        if self._interrupts == 2 and number == signal.SIGINT:
            raise KeyboardInterrupt
        # The first one counts: a scheduler's SIGTERM after Ctrl-C changes nothing.
        self._signal = self._signal or number
        if not self._deferred:
            raise self.stopped("nothing was computed since the last checkpoint")
