"""Every figure by name."""

from typing import NamedTuple

from purenoise_jax.analysis import class_accuracy, confusion, curves, groups, images, subsets
from purenoise_jax.analysis.drawing import Draw


class Entry(NamedTuple):
    """How a figure is drawn, and what it shows, in a line."""

    draw: Draw
    help: str


FIGURES: dict[str, Entry] = {
    "curves": Entry(curves.draw, "loss, test accuracy and learning rate by epoch"),
    "confusion": Entry(confusion.draw, "confusion matrix, a row for each true class"),
    "groups": Entry(groups.draw, "accuracy of five groups of classes, rarest to most frequent"),
    "class_accuracy": Entry(class_accuracy.draw, "accuracy of each class against its size"),
    "images": Entry(images.draw, "a training batch, augmented, with its noise images"),
    "subsets": Entry(subsets.draw, "overlap of the long-tailed subsets in use (one run)"),
}
