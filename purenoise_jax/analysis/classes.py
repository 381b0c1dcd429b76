"""Classes in figures: their order, names and colours."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from purenoise_jax.analysis.figure_style import literal
from purenoise_jax.inference.runs import Run

# Nine colours of Paul Tol's "muted" scheme, made for colour-blind readers, and an orange.
PALETTE = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#E69F00",
)  # fmt: skip
# With more classes than this, their names do not fit.
NAMED = len(PALETTE)


def by_frequency(class_counts: np.ndarray) -> np.ndarray:
    """Returns the class indices, most training images first; ties are in label order."""
    return np.argsort(-np.asarray(class_counts), kind="stable")


def class_colors(classes: int) -> list[str]:
    """Returns a colour for each of `classes` classes: distinct ones, or a range if many."""
    if classes <= len(PALETTE):
        return list(PALETTE[:classes])
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.95, classes))
    return [mpl.colors.to_hex(shade) for shade in shades]


def class_axis(axes: Axes, run: Run, order: np.ndarray) -> None:
    """Labels positions 0 .. K - 1 of the x axis with the classes in this order.

    The labels are names if there are at most ten classes, otherwise positions.
    """
    if len(order) > NAMED:
        axes.set_xlabel("class, most training images first")
        return
    names = run.class_names
    slanted = max(len(names[c]) for c in order) > 2
    axes.set_xticks(
        range(len(order)),
        [literal(names[c]) for c in order],
        rotation=40 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor",
    )
