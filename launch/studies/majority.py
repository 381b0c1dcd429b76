"""More images of the majority class alone, and where they begin to harm.

Source: Shwartz-Ziv et al. 2023, appendix A.8.2, figure 17: the minority class (automobiles) has
200 training images, the majority class (airplanes) more and more, and the test set is balanced.

READING: 200 is the number of the text; the default of the authors' code is 250. The numbers of the
majority class are not given. Here they are evenly spaced in logarithm, from the ratio 10^0.43 at
which the training ratios of A.8.1 end to all 5,000 images, with 200 among them.

All runs of the full version have the same epochs, so those with more images have more steps.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import Drawing, styled

from ..cells import Row
from ..plan import Cell, Plan, Table
from .ratios import EXPONENTS
from .two_classes import (
    NAMES,
    SOURCE,
    class_accuracies,
    length_note,
    rounded,
    standard_errors,
    two_class_config,
)

MINORITY, LARGEST = 200, 5000
NUMBER = 25
MINI_MAJORITIES = (100, 200, 500, 1000, 2000, 5000)
BOTH = "both classes"


def majority(plan: Plan) -> Table:
    """A growing majority class beside a minority of 200 images."""
    sizes = MINI_MAJORITIES if plan.mini or plan.quick else majorities()
    cells = [
        Cell(f"{MINORITY} {NAMES[1]}", f"{n:,} {NAMES[0]}", two_class_config(plan, (n, MINORITY)))
        for n in sizes
    ]
    return Table(
        f"growing majority class, CIFAR-10, balanced test set{length_note(plan)}",
        SOURCE,
        tuple(cells),
        published=(),
        figure=draw,
    )


def majorities() -> tuple[int, ...]:
    """The numbers of majority images of the full version, rising."""
    smallest = MINORITY / 10 ** EXPONENTS[1]
    found = np.geomspace(smallest, LARGEST, NUMBER)
    found[np.abs(np.log(found / MINORITY)).argmin()] = MINORITY
    return tuple(round(n) for n in found.tolist())


def draw(rows: Sequence[Row], plan: Plan) -> Drawing:
    """Draws the accuracy over the number of majority images, of both classes and of each.

    Args:
        rows: of the table `majority`.
        plan: of the runs.
    """
    sizes, means, errors = [], [], []
    for row in rows:
        found = class_accuracies(row)
        if row.cell.config is not None and len(found):
            # The test set is balanced.
            values = np.column_stack([found.mean(axis=1), found])
            sizes.append(row.cell.config.data.class_counts[0])
            means.append(values.mean(axis=0))
            errors.append(standard_errors(values))
    mean, error = np.array(means), np.array(errors)
    names = (BOTH, f"{NAMES[0]} (majority)", f"{NAMES[1]} ({MINORITY} images)")
    with styled():
        figure = Figure(figsize=(5.4, 3.8))
        axes = figure.subplots()
        for name, marker, m, e in zip(names, "osD", 100 * mean.T, 100 * error.T, strict=True):
            line = "-" if name == BOTH else "--"
            axes.errorbar(sizes, m, e, marker=marker, ms=4, lw=1.4, ls=line, capsize=2, label=name)
        axes.set_xscale("log")
        axes.axvline(MINORITY, color="#999999", lw=1, ls=":", label="balanced")
        axes.set_xlabel(f"training images of {NAMES[0]}")
        axes.set_ylabel("test accuracy (%)")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    numbers = {
        "caveat": plan.caveat,
        "minority": MINORITY,
        "majority": sizes,
        "best_majority": sizes[int(mean[:, 0].argmax())],
        "test_accuracy": dict(zip(names, mean.T.round(5).tolist(), strict=True)),
        "standard_error": dict(zip(names, map(rounded, error.T), strict=True)),
    }
    return Drawing(figure, numbers)
