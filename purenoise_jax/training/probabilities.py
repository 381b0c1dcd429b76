"""Fit of the probabilities of a run's last evaluation: bins of confidence and average precision."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.files import read_json, write_json

# By split. Their size grows with the classes, not with the images.
FILES = {split: f"probabilities_{split}.json" for split in ("test", "val")}
# Up to so many logits are kept for the average precision, which is 1 GiB.
MOST = 1 << 28
# Images whose probabilities are normalised at a time.
ROWS = 1024


class Probabilities(NamedTuple):
    """Numbers from the probabilities of the images of a split, at temperature 1.

    Attributes:
        bins: f64[bins, 3], per bin of confidence the number of images, the sum of their
            confidences, and the number predicted right.
        average_precision: K numbers in [0, 1], see `average_precisions`; None where there is none.
    """

    bins: np.ndarray
    average_precision: list[float | None]


def average_precisions(logits: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """Returns the average precision of every class, its images against all others.

    It is the sum over the images of the class of the precision among the images with at least the
    same probability of the class, divided by their number, without interpolation.

    Args:
        logits: f[N, K].
        labels: int[N] in [0, K).

    Returns:
        K numbers in [0, 1]; None for a class without images, and for all classes if a logit is not
        finite.
    """
    images, classes = logits.shape
    if not np.isfinite(logits).all():
        return [None] * classes
    largest = logits.max(axis=1).astype(np.float64)
    log_total = np.empty(images)
    # In parts, because N x K numbers of 64 bits may not fit into the memory.
    for first in range(0, images, ROWS):
        part = slice(first, first + ROWS)
        log_total[part] = np.log(np.exp(logits[part] - largest[part, None]).sum(axis=1))
    found: list[float | None] = []
    for k in range(classes):
        log_share = logits[:, k] - largest - log_total
        own = np.sort(log_share[labels == k])
        if not own.size:
            found.append(None)
            continue
        # For every image, how many of the class have at most its probability.
        below = np.bincount(np.searchsorted(own, log_share, side="right"), minlength=own.size + 1)
        reached = images - np.cumsum(below)[:-1]
        right = own.size - np.searchsorted(own, own)
        found.append(float((right / reached).mean()))
    return found


def save(path: Path, probabilities: Probabilities, step: int) -> None:
    """Writes the numbers to a JSON file.

    Args:
        path: of the file; it is written completely or not at all.
        probabilities: the numbers.
        step: completed steps.

    Raises:
        OSError: it could not be written.
    """
    bins = np.asarray(probabilities.bins, np.float64).tolist()
    precision = probabilities.average_precision
    write_json(path, {"step": step, "bins": bins, "average_precision": precision})


def load(path: Path, step: int, classes: int) -> Probabilities:
    """Reads the numbers after a number of completed steps.

    Args:
        path: of a file that `save` has written.
        step: completed steps.
        classes: K.

    Raises:
        ConfigError: it is missing, damaged, or that of another step.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing: it is written at the end of a run")
    try:
        content = read_json(path)
        bins = np.asarray(content["bins"], np.float64)
        precision = [None if x is None else float(x) for x in content["average_precision"]]
        found = int(content["step"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error})") from None
    shares = [x for x in precision if x is not None]
    if (
        bins.ndim != 2
        or bins.shape[1] != 3
        or not np.isfinite(bins).all()
        or len(precision) != classes
        or not all(math.isfinite(x) and 0 <= x <= 1 for x in shares)
    ):
        raise ConfigError(f"{path} is damaged (its numbers are no bins and average precisions)")
    if found != step:
        raise ConfigError(f"{path} is that of step {found:,}, and the newest evaluation that of "
                          f"step {step:,}")  # fmt: skip
    return Probabilities(bins, precision)
