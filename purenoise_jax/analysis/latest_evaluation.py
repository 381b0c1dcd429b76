"""The newest evaluation of a run on the test set, also of a run that is not finished.

A run without a test set has validation images in its place.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.console import SPLITS
from purenoise_jax.runtime.errors import ConfigError, DataError, harmless
from purenoise_jax.training import probabilities
from purenoise_jax.training.confusion import FILES, Confusion, load
from purenoise_jax.training.intervals import Intervals, accuracy_intervals
from purenoise_jax.training.metrics import TRAINING_SET, mean_of
from purenoise_jax.training.probabilities import Probabilities

# In summary.json these begin with "test_", because it also has those of the validation set.
PREFIXED = ("accuracy", "nll", "ece")
UNPREFIXED = (
    "top5_accuracy",
    "balanced_accuracy",
    "per_class_accuracy",
    "group_accuracy",
    "many_accuracy",
    "medium_accuracy",
    "few_accuracy",
    "geometric_mean",
    "confusion_matrix",
    "shifted_accuracy",
)
# Of the numbers of validation and training images.
OTHERS = ("accuracy", "balanced_accuracy")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A run's newest evaluation on the test set.

    Attributes:
        workdir: of the run.
        epoch: completed epochs.
        step: completed steps.
        finished: True if that is the run's last epoch.
        numbers: by the names of `metrics.summarize`, confusion_matrix (of few classes) and
            shifted_accuracy; numbers that do not exist are left out.
        class_counts: K training images per class.
        class_names: K names without control characters (see `errors.harmless`).
        split: "test", or "val" of a run without a test set.
        validation: accuracy and balanced_accuracy on validation images, if there are any beside a
            test set.
        training: the same on the training images, if they were evaluated.
    """

    workdir: Path
    epoch: float
    step: int
    finished: bool
    numbers: dict[str, Any]
    class_counts: list[int]
    class_names: list[str]
    split: str = "test"
    validation: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name of the split: "test" or "validation"."""
        return SPLITS[self.split]

    @property
    def order(self) -> list[int]:
        """The classes, the most frequent first; ties are in label order."""
        return sorted(range(len(self.class_counts)), key=lambda k: -self.class_counts[k])

    def number(self, name: str) -> Any:
        """Returns one of the numbers, or None if it does not exist."""
        return self.numbers.get(name)

    def confusion(self) -> Confusion:
        """Returns the confusion matrix: the recorded one, or that of the file of many classes.

        Raises:
            ConfigError: neither is there, or the file is damaged or that of another step.
        """
        recorded = self.number("confusion_matrix")
        if recorded is not None:
            return Confusion.from_dense(np.asarray(recorded, np.int64))
        return load(self.workdir / FILES[self.split], self.step)

    def probabilities(self) -> Probabilities:
        """Returns the bins of confidence and the average precision by class.

        Raises:
            ConfigError: their file is missing, damaged or that of another step.
        """
        file = self.workdir / probabilities.FILES[self.split]
        return probabilities.load(file, self.step, len(self.class_counts))

    @functools.cached_property
    def average_precision(self) -> list[float | None]:
        """The average precision of every class; None where it is not known."""
        try:
            return self.probabilities().average_precision
        except ConfigError:
            return [None] * len(self.class_counts)

    @property
    def mean_average_precision(self) -> float | None:
        """Mean of the average precision over the classes that have images; None without any."""
        return mean_of(self.average_precision)

    @functools.cached_property
    def counted(self) -> tuple[Confusion, Intervals] | None:
        """The confusion matrix and the intervals of its accuracies; None if it is not known."""
        try:
            found = self.confusion()
        except ConfigError:
            return None
        results = found.results()
        return (found, accuracy_intervals(results)) if results.images.sum() else None


def latest_evaluation(run: Run) -> Evaluation:
    """Returns the newest evaluation: that of summary.json, or a later one of metrics.jsonl.

    Raises:
        ConfigError: the run has no evaluation yet.
        DataError: the class counts are not recorded, and the data cannot be read.
    """
    summary = run.summary or {}
    ended = summary.get("epochs", 0)
    newer = [record for record in run.evaluations() if record["epoch"] > ended]
    if newer:
        record = newer[-1]
        numbers = {
            name.removeprefix(f"{run.shown}/"): value
            for name, value in record.items()
            if name.startswith(f"{run.shown}/")
        }
        epoch, step, finished = record["epoch"], record["step"], False
        validation = {name: record.get(f"val/{name}") for name in OTHERS}
        training = {name: record.get(f"{TRAINING_SET}/{name}") for name in OTHERS}
    elif summary:
        numbers = {name: summary.get(name) for name in UNPREFIXED}
        numbers |= {name: summary.get(f"{run.shown}_{name}") for name in PREFIXED}
        # A run that was started again with more epochs still has the summary of the shorter run.
        planned = ended if summary.get("ended_early") else run.config.num_epochs
        epoch, finished = ended, ended >= planned
        step = summary.get("steps", 0)
        validation = {name: summary.get(f"val_{name}") for name in OTHERS}
        training = {name: summary.get(TRAINING_SET, {}).get(name) for name in OTHERS}
    else:
        raise ConfigError(f"{run.path} has no evaluation yet")
    counts, names = classes_of(run)
    numbers = {name: value for name, value in numbers.items() if value is not None}
    if "accuracy" not in numbers:
        raise ConfigError(f"{run.path} has no evaluation: no image was left to measure with")
    if run.shown == "val" or None in validation.values():
        validation = {}
    if None in training.values():
        training = {}
    return Evaluation(
        run.path, epoch, step, finished, numbers, counts, names, run.shown, validation, training
    )


def classes_of(run: Run) -> tuple[list[int], list[str]]:
    """Returns the training images of each class, and the names without control characters.

    Raises:
        DataError: the class counts are not recorded, and the data cannot be read.
    """
    known = run.recorded
    if "class_counts" in known and "class_names" in known:
        return list(known["class_counts"]), [harmless(name) for name in known["class_names"]]
    try:
        experiment = run.experiment
    except DataError:
        if "class_counts" not in known:
            raise
        # A checkpoint of an earlier version has no class names; the labels take their place.
        counts = list(known["class_counts"])
        return counts, [str(k) for k in range(len(counts))]
    return experiment.training.stats.class_counts.tolist(), run.class_names
