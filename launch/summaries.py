"""Numbers of the summaries of finished runs, of test images or of validation images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

TEST, VALIDATION = "test", "val"


def split_of(summary: Mapping[str, Any]) -> str:
    """Returns the split that a summary is about: validation, where there are no test images."""
    return str(summary.get("shown") or TEST)


def accuracy(summary: Mapping[str, Any]) -> float | None:
    """Returns the share of images that are right, in [0, 1]; None if it was not measured."""
    return summary.get(f"{split_of(summary)}_accuracy")


def balanced_accuracy(summary: Mapping[str, Any]) -> float | None:
    """Returns the mean over classes of their accuracy, in [0, 1]; None if it was not measured."""
    return summary.get("balanced_accuracy")


def rarest(summary: Mapping[str, Any]) -> float | None:
    """Returns the accuracy of the rarest fifth of the classes; with fewer than five, of the rarest.

    Returns:
        In [0, 1]; None if there is no image of these classes.
    """
    groups = summary.get("group_accuracy")
    if groups:
        return groups[0]
    shares, counts = summary.get("per_class_accuracy"), summary.get("class_counts")
    if not shares or not counts:
        return None
    # Among equals the last, as in the groups.
    return shares[len(counts) - 1 - int(np.argmin(counts[::-1]))]
