"""Every figure by name."""

from typing import NamedTuple

from purenoise_jax.analysis import curves
from purenoise_jax.analysis.drawing import Draw


class Entry(NamedTuple):
    """How a figure is drawn, and what it shows, in a line."""

    draw: Draw
    help: str


FIGURES: dict[str, Entry] = {
    "curves": Entry(curves.draw, "loss, test accuracy and learning rate by epoch"),
}
