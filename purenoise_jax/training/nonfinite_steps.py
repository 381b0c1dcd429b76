"""Logs steps that were skipped for non-finite values; stops the run after three in a row."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.errors import NonFiniteError
from purenoise_jax.runtime.files import append_whole, write_atomically
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.metric_writer import read_metrics

# Skipped steps in a row that end a run: one bad batch is an accident, three come from a state or a
# data set that gives nothing else.
MAX_IN_A_ROW = 3
FILE = "skipped.jsonl"


class NonFiniteSteps:
    """Counts and logs the skipped steps of a run.

    Each is a line of skipped.jsonl, which the first of them creates: {"step", "epoch", "row",
    "indices"}, where step and epoch are counted from 0, row is the step within its epoch, and
    indices are those of its batch's images in the training set, in the order of their rows.

    Args:
        workdir: of the run.
        display: where each is reported.
        checkpoints: of the run; the newest is named when the run is stopped.
        steps_per_epoch: of the run.
        step: that the run continues from; lines of later steps are removed, because these
            steps will run again.
        count: skipped before that step.
        in_a_row: the number of them directly before that step.
        writes: True in the process that writes the file.

    Attributes:
        count: skipped steps of the run, earlier processes included.
    """

    def __init__(
        self,
        workdir: Path,
        display: Display,
        checkpoints: Checkpoints,
        steps_per_epoch: int,
        *,
        step: int = 0,
        count: int = 0,
        in_a_row: int = 0,
        writes: bool = True,
    ) -> None:
        self.count = count
        self._path = workdir / FILE
        self._display = display
        self._checkpoints = checkpoints
        self._steps_per_epoch = steps_per_epoch
        self._last = step - 1
        self._in_a_row = in_a_row
        self._writes = writes
        # A broken link is replaced, too.
        if os.path.lexists(self._path):
            self._write(lambda: self._cut(step))

    def in_a_row(self, step: int) -> int:
        """The number of checked steps directly before a step that were skipped."""
        return self._in_a_row if self._last == step - 1 else 0

    def check(self, totals: EpochMetrics, epoch: int, index: np.ndarray, valid: np.ndarray) -> None:
        """Logs steps that were skipped since the last call; waits for those of `totals`.

        Args:
            totals: of the epoch so far.
            epoch: counted from 0.
            index: i32[steps, B], the epoch's images by row.
            valid: bool[steps, B], False = padding.

        Raises:
            NonFiniteError: `MAX_IN_A_ROW` steps in a row were skipped.
        """
        for row in np.flatnonzero(np.asarray(totals.skipped)).tolist():
            step = epoch * self._steps_per_epoch + row
            # `totals` also has those that an earlier call has logged.
            if step <= self._last:
                continue
            self._in_a_row = self.in_a_row(step) + 1
            self._last = step
            self.count += 1
            self._log(step, epoch, row, index[row][valid[row]].tolist())
            if self._in_a_row == MAX_IN_A_ROW:
                self._stop(epoch)

    def _log(self, step: int, epoch: int, row: int, indices: list[int]) -> None:
        line = {"step": step, "epoch": epoch, "row": row, "indices": indices}
        self._write(lambda: self._append(line))
        self._display.warn(
            f"step {step} (epoch {epoch}) was skipped because its loss, gradient or result is "
            f"not finite; its batch is in {self._path}",
        )

    def _stop(self, epoch: int) -> None:
        steps = ", ".join(
            str(step) for step in range(self._last - MAX_IN_A_ROW + 1, self._last + 1)
        )
        self._checkpoints.wait()
        good = self._checkpoints.steps()
        raise NonFiniteError(
            f"the loss, the gradient or their result is not finite at steps {steps} "
            f"(epoch {epoch}), which were skipped, see {self._path}; last good checkpoint: "
            f"{good[-1] if good else 'none'} in {self._checkpoints.folder}"
        )

    def _cut(self, step: int) -> None:
        kept = [line for line in read_metrics(self._path) if line["step"] < step]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def _append(self, line: dict[str, Any]) -> None:
        append_whole(self._path, json.dumps(line) + "\n")

    def _write(self, how: Callable[[], None]) -> None:
        if not self._writes:
            return
        try:
            how()
        except OSError as error:
            # The run goes on, and there is no second warning.
            self._writes = False
            self._display.warn(f"{self._path} cannot be written: {error}")
