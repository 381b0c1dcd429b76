"""What came out of a run so far: its newest evaluation on the test set, finished or not."""

import dataclasses
from typing import Any

from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import ConfigError, DataError, harmless

# summary.json marks these, as it also has those of the validation set.
MARKED = ("accuracy", "nll", "ece")
PLAIN = (
    "balanced_accuracy",
    "per_class_accuracy",
    "group_accuracy",
    "many_accuracy",
    "medium_accuracy",
    "few_accuracy",
    "geometric_mean",
    "confusion_matrix",
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A run's newest evaluation on the test set.

    Attributes:
        epoch: completed epochs.
        finished: whether that is the run's last epoch.
        numbers: by the names of `metrics.summarize`, and confusion_matrix; what does not exist is
            left out.
        class_counts: K, training images per class.
        class_names: K, harmless (see `errors.harmless`).
    """

    epoch: float
    finished: bool
    numbers: dict[str, Any]
    class_counts: list[int]
    class_names: list[str]

    @property
    def order(self) -> list[int]:
        """The classes, the most frequent first; among equals the earlier label."""
        return sorted(range(len(self.class_counts)), key=lambda k: -self.class_counts[k])

    def number(self, name: str) -> Any:
        """One of the numbers, or None where it does not exist."""
        return self.numbers.get(name)


def latest_evaluation(run: Run) -> Evaluation:
    """Finds the newest evaluation: that of summary.json, or one that metrics.jsonl has after it.

    Raises:
        ConfigError: the run has none yet.
        DataError: the class counts stand nowhere, and the data cannot be read.
    """
    summary = run.summary or {}
    ended = summary.get("epochs", 0)
    newer = [record for record in run.evaluations() if record["epoch"] > ended]
    if newer:
        record = newer[-1]
        numbers = {
            name.removeprefix("test/"): value
            for name, value in record.items()
            if name.startswith("test/")
        }
        epoch, finished = record["epoch"], False
    elif summary:
        numbers = {name: summary.get(name) for name in PLAIN}
        numbers |= {name: summary.get(f"test_{name}") for name in MARKED}
        # Started again with more epochs, a run has the summary of the shorter one.
        epoch, finished = ended, ended >= run.config.num_epochs
    else:
        raise ConfigError(f"{run.path} has no evaluation yet")
    counts, names = _classes(run)
    numbers = {name: value for name, value in numbers.items() if value is not None}
    return Evaluation(epoch, finished, numbers, counts, names)


def _classes(run: Run) -> tuple[list[int], list[str]]:
    known = run.recorded
    if "class_counts" in known and "class_names" in known:
        return list(known["class_counts"]), [harmless(name) for name in known["class_names"]]
    try:
        experiment = run.experiment
    except DataError:
        if "class_counts" not in known:
            raise
        # Names are not in a checkpoint; the labels themselves will do.
        counts = list(known["class_counts"])
        return counts, [str(k) for k in range(len(counts))]
    return experiment.training.stats.class_counts.tolist(), run.class_names
