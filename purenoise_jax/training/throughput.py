"""The rate of training steps."""

import time


class StepTimer:
    """Measures the rate of steps, without compilation and without the time between epochs.

    Args:
        batch_size: rows of a step.
        steps: measured before, by an earlier part of the run.
        seconds: that they took.
    """

    def __init__(self, batch_size: int, steps: int = 0, seconds: float = 0.0) -> None:
        self._batch_size = batch_size
        self._since: float | None = None
        self.steps = steps
        self.seconds = seconds

    def start(self) -> None:
        """Starts the timer."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Stops the timer."""
        self._since = None

    def tick(self, steps: int) -> None:
        """Counts steps that are done; starts the timer if it is stopped."""
        now = time.monotonic()
        if self._since is not None:
            self.seconds += now - self._since
            self.steps += steps
        self._since = now

    @property
    def seconds_per_step(self) -> float | None:
        """Seconds of a step; None before any step was measured."""
        return self.seconds / self.steps if self.steps else None

    @property
    def images_per_second(self) -> float | None:
        """Rows of training steps per second, None before any step was measured."""
        return self._batch_size * self.steps / self.seconds if self.steps else None

    def steps_within(self, seconds: float) -> int:
        """The number of steps that take so long, at least 1; 1 before any was measured."""
        rate = self.seconds_per_step
        return 1 if rate is None else max(1, int(seconds / max(rate, 1e-9)))
