"""Numbers of the runs of a row by epoch, from their metrics.jsonl."""

from typing import Any, NamedTuple

import numpy as np

from purenoise_jax.analysis.classification_ratio import fitted_records, ratios
from purenoise_jax.training.metric_writer import METRICS, read_metrics
from purenoise_jax.training.metrics import TRAINING_SET

from ..cells import Row


class Fitting(NamedTuple):
    """The fit of a row's training images, as means over its finished runs.

    Attributes:
        epochs: E numbers of completed epochs.
        accuracy: f64[E, K], training accuracy of each class, in [0, 1].
        ratio: f64[E, K], classification ratio of each class, at least 0.
        class_counts: int[K], training images per class.
        runs: number of finished runs.
    """

    epochs: list[float]
    accuracy: np.ndarray
    ratio: np.ndarray
    class_counts: np.ndarray
    runs: int

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers as JSON values, rounded to a hundredth of a percent."""
        return {
            "runs": self.runs,
            "class_counts": self.class_counts.tolist(),
            "epochs": self.epochs,
            "training_accuracy": self.accuracy.round(4).tolist(),
            "classification_ratio": self.ratio.round(4).tolist(),
        }


def fitting_of(row: Row) -> Fitting:
    """Reads the evaluations of the training images of a row's runs.

    Args:
        row: with at least one finished run; the epochs of all are the same.

    Raises:
        ConfigError: the training images of a run were not evaluated.
        OSError: metrics.jsonl cannot be read.
    """
    counts = np.array(row.summaries[0]["class_counts"])
    accuracy, ratio, epochs = [], [], list[float]()
    for workdir in row.workdirs:
        records = fitted_records(workdir, read_metrics(workdir / METRICS))
        epochs = [record["epoch"] for record in records]
        name = f"{TRAINING_SET}/per_class_accuracy"
        accuracy.append(np.array([record[name] for record in records], np.float64))
        ratio.append(ratios(records, counts))
    return Fitting(
        epochs, np.mean(accuracy, axis=0), np.mean(ratio, axis=0), counts, len(row.workdirs)
    )
