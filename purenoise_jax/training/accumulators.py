"""Metrics of training steps, summed on the devices over an epoch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.runtime.errors import CheckpointError


class StepMetrics(NamedTuple):
    """Sums over steps, each a scalar.

    Attributes:
        row_loss: f32 (f64 under `jax_enable_x64`), the losses of all rows, noise included, so that
            an epoch's last, shorter batch weighs as much as it has rows.
        steps: i32.
        natural, noise: i32, rows of each kind.
        correct: i32, natural rows whose largest logit is their label.
    """

    row_loss: jax.Array
    steps: jax.Array
    natural: jax.Array
    noise: jax.Array
    correct: jax.Array


class EpochMetrics(NamedTuple):
    """Metrics of the steps of an epoch so far, on the devices.

    Attributes:
        sums: over the steps that trained.
        skipped: bool[S] by row of the epoch, True for a step that changed nothing because something
            was not finite, see `finite_check.keep_finite`.
    """

    sums: StepMetrics
    skipped: jax.Array

    @classmethod
    def zero(cls, steps: int) -> "EpochMetrics":
        """The metrics of an epoch before its first step.

        Args:
            steps: of the epoch.
        """
        none = jnp.zeros((), jnp.int32)
        sums = StepMetrics(jnp.zeros(()), none, none, none, none)
        return cls(sums, jnp.zeros(steps, bool))

    def add(self, sums: StepMetrics, step: jax.Array, finite: jax.Array) -> "EpochMetrics":
        """Adds a step: to the sums if it was finite, otherwise to the skipped ones.

        Args:
            sums: of the step alone.
            step: i32[], completed steps before it.
            finite: bool[].
        """
        row = jnp.arange(self.skipped.size) == step % self.skipped.size
        return EpochMetrics(
            jax.tree.map(lambda total, new: total + jnp.where(finite, new, 0), self.sums, sums),
            self.skipped | (row & ~finite),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the exact sums by name; waits for the steps that are still running."""
        sums = {name: np.asarray(x).tolist() for name, x in self.sums._asdict().items()}
        # A sum of large losses may be infinite, which JSON cannot hold.
        sums["row_loss"] = repr(sums["row_loss"])
        return {**sums, "skipped": np.flatnonzero(np.asarray(self.skipped)).tolist()}

    def from_json(self, values: Mapping[str, Any]) -> "EpochMetrics":
        """Reads what `to_json` returned, for an epoch of as many steps as this one.

        Records of the first version have the sum of the steps' mean losses. All steps but an
        epoch's last have the same number of rows, so the sum over rows follows from it.

        Raises:
            CheckpointError: a sum is missing or not a number, or a skipped step is not in the
                epoch.
        """
        try:
            if "row_loss" not in values:
                rows, steps = values["natural"] + values["noise"], max(values["steps"], 1)
                values = {**values, "row_loss": float(values["loss"]) * rows / steps}
            dtypes = {name: x.dtype for name, x in self.sums._asdict().items()}
            sums = {name: np.asarray(float(values[name]), t) for name, t in dtypes.items()}
            skipped = np.zeros(self.skipped.size, bool)
            skipped[np.asarray(values["skipped"], int)] = True
        except (LookupError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"the totals of a checkpoint's epoch: {reason}") from error
        return EpochMetrics(StepMetrics(**jax.tree.map(jnp.asarray, sums)), jnp.asarray(skipped))
