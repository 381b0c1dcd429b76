"""Runs on two classes of CIFAR-10 with given numbers of training images.

Source: Shwartz-Ziv et al. 2023 ("Simplifying Neural Network Training Under Class Imbalance"),
appendix A.8 and B.

READING: the figures of A.8 but one are about CIFAR-100 and CINIC-10, and the authors' code about
classes 0 and 1 with 5,000 images in all. Two classes of CIFAR-100 have 1,000, so these runs are on
CIFAR-10: airplanes (class 0) and automobiles (class 1).
READING: network, schedule, rate and weight decay are those of appendix B: WRN-28-10, 300 epochs, a
cosine from 0.1 after a warm-up (5 epochs here), 2e-4. Its other parts (TrivialAugment, CutMix,
label smoothing, moving average) are left out, because a study is about one component; images are
flipped and cropped. The defaults of the authors' code differ (a rate of 0.01 without warm-up,
weight decay 1e-4), and its WRN-28-10 drops no activations; ours drops 0.3.
DEVIATION: in the mini tier all runs of `two_class_config` have about the same number of steps
instead of epochs. With few epochs a small training set would otherwise be hardly trained at all,
and its size would have an effect that the source does not speak of. The images of a larger set are
therefore shown less often.
"""

import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from purenoise_jax.data.sampling import steps_per_epoch
from purenoise_jax.training.metrics import standard_error

from ..cells import Row
from ..plan import MINI_EPOCHS, Plan

DATASET = "CIFAR-10-LT"
CLASSES = (0, 1)
NAMES = ("airplanes", "automobiles")
EPOCHS, WARMUP = 300, 5
SOURCE = "Shwartz-Ziv et al. 2023, appendix A.8 (figures without numbers)"
# Steps of a run of the mini tier, and the images of each.
MINI_STEPS, MINI_BATCH, MINI_RATE = 300, 64, 0.05
QUICK_IMAGES = 100


def counts_of(ratio: float, total: int) -> tuple[int, int]:
    """Divides images between two classes.

    Args:
        ratio: images of the second class over those of the first.
        total: images of both.

    Returns:
        Images of either class, at least 1.
    """
    second = min(max(round(total * ratio / (1 + ratio)), 1), total - 1)
    return total - second, second


def counted_config(plan: Plan, dataset: str, method: str, **fields: Any) -> ConfigDict:
    """Builds a config with the recipe of all curves and given class counts.

    Args:
        plan: of all runs.
        dataset: as `Plan.config` has it.
        method: methods of a config, joined by +.
        **fields: those of `Plan.config`, `data__class_counts` among them; they replace the recipe.
    """
    recipe: dict[str, Any] = {
        "augment": "flip_crop",
        "epochs": EPOCHS,
        "data__imbalance_ratio": 0.0,
        "optimizer__schedule": "cosine",
        "optimizer__milestones": (),
        "optimizer__warmup_epochs": plan.scaled(WARMUP),
    }
    config = plan.config(dataset, method, **recipe | fields)
    # Class counts say all that a limit would say.
    config.data.limit = 0
    return config


def two_class_config(plan: Plan, counts: tuple[int, int]) -> ConfigDict:
    """Builds the config of plain training on two classes.

    Args:
        plan: of all runs.
        counts: training images of each class.
    """
    mini: dict[str, Any] = {}
    if plan.quick:
        first, second = (max(round(QUICK_IMAGES * n / sum(counts)), 1) for n in counts)
        counts = (first, second)
    if plan.mini:
        steps = MINI_STEPS * plan.epochs / MINI_EPOCHS
        epochs = max(math.ceil(steps / steps_per_epoch(sum(counts), MINI_BATCH)), 1)
        mini = {
            "num_epochs": epochs,
            "optimizer__warmup_epochs": round(epochs * WARMUP / EPOCHS),
            "batch_size": MINI_BATCH,
            "optimizer__learning_rate": MINI_RATE,
            "checkpoint__epochs": (),
        }
    return counted_config(
        plan,
        DATASET,
        "erm",
        data__classes=CLASSES,
        data__class_counts=counts,
        **mini,
    )


def length_note(plan: Plan) -> str:
    """The end of a table's title where its runs are counted in steps."""
    steps = round(MINI_STEPS * plan.epochs / MINI_EPOCHS)
    return f", about {steps} steps of {MINI_BATCH} images a run" if plan.mini else ""


def rounded(values: np.ndarray) -> list[float | None]:
    """Numbers f64[N] as JSON values; None for NaN."""
    return [None if np.isnan(value) else round(value, 5) for value in values.tolist()]


def class_accuracies(row: Row) -> np.ndarray:
    """The test accuracy of each class in every finished run of a row, f64[S, 2]."""
    found = [s["per_class_accuracy"] for s in row.summaries if s.get("per_class_accuracy")]
    return np.array(found, np.float64).reshape(-1, len(CLASSES))


def standard_errors(values: np.ndarray) -> np.ndarray:
    """Standard error of each column of f64[S, N], f64[N]; NaN with a single row."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan)
    return np.array([standard_error(column) for column in values.T.tolist()])
