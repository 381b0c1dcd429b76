"""The best evaluation of a run on validation images, whose checkpoint is kept, and its patience."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from purenoise_jax.config.fields import BEST, NONE

# Metric of validation images -> 1 if more is better, otherwise -1.
METRICS = {name: -1 if name == "nll" else 1 for name in BEST if name != NONE}


@dataclasses.dataclass(frozen=True)
class Best:
    """The best evaluation so far, by one metric of the validation images.

    Attributes:
        metric: one of `BEST`; with "none" no evaluation is the best.
        value: of the metric; None = there was no evaluation yet.
        step: completed steps.
        epoch: completed epochs.
        stale: evaluations since then without a better one, of the last phase only.
    """

    metric: str
    value: float | None = None
    step: int = 0
    epoch: int = 0
    stale: int = 0

    @classmethod
    def restored(
        cls, metric: str, record: Mapping[str, Any] | None, steps: Collection[int]
    ) -> "Best":
        """Returns the best evaluation before a run continues.

        It begins anew if another metric is wanted, or if its checkpoint is gone.

        Args:
            metric: that is wanted.
            record: `to_json` of the checkpoint that the run continues from; None = it had none.
            steps: of the checkpoints that are there.
        """
        if record is None or record["metric"] != metric or record["step"] not in steps:
            return cls(metric)
        return cls(**record)

    def after(self, val: Mapping[str, Any] | None, step: int, epoch: int, counts: bool) -> "Best":
        """Returns the best evaluation after one more; `step` tells if that is the best.

        Args:
            val: its numbers; None = the run has no validation images.
            step: completed steps.
            epoch: completed epochs.
            counts: one that is not better counts as stale.
        """
        if self.metric == NONE or val is None:
            return self
        value, sign = val.get(self.metric), METRICS[self.metric]
        if value is not None and (self.value is None or sign * value > sign * self.value):
            return Best(self.metric, float(value), step, epoch)
        return dataclasses.replace(self, stale=self.stale + counts)

    def to_json(self) -> dict[str, Any] | None:
        """Returns JSON values for the record of a checkpoint; None before the first evaluation."""
        return None if self.value is None else dataclasses.asdict(self)
