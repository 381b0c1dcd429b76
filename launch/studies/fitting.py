"""Fitting the minority: training accuracy by epoch and class, without any regularisation.

Source: Shwartz-Ziv et al. 2023, section A.10, figure 18: ResNet-50, SGD with a learning rate of
0.5 and a cosine, no augmentation, several ratios. Here it is CIFAR-10; there is no weight decay,
and momentum, batch size and warm-up (none) are those of the project's usual recipe.

READING: the network begins with the stem for small images. The ratios, the length and the training
sets are published nowhere. The ratios (smallest over largest class) are log-spaced from 1 to 0.001.
All sets have about 5,000 images, as the sets of the source's curves do, so that an epoch has as
many steps at every ratio: five majority classes and five minority classes of equal size each. The
images of a minority class are rounded down, and at least 1. Training takes the 300 epochs of the
source's code.
"""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from ml_collections import ConfigDict

from purenoise_jax.analysis.figure_style import Drawing, styled

from ..cells import Row
from ..plan import Cell, Plan, Table
from .series import fitting_of

TOTAL, CLASSES, EPOCHS = 5000, 10, 300
RATIOS = tuple(float(f"{ratio:.3g}") for ratio in np.geomspace(1, 0.001, 7))
MINI_RATIOS = RATIOS[::2]
GROUPS = {"minority": slice(CLASSES // 2, None), "majority": slice(0, CLASSES // 2)}


def fitting(plan: Plan) -> Table:
    """Training accuracy by epoch and class at ratios 1 to 0.001, not regularised."""
    ratios = MINI_RATIOS if plan.mini else RATIOS
    cells = (
        Cell(f"CIFAR-10, {TOTAL:,} training images", f"ratio {ratio:g}", _config(plan, ratio))
        for ratio in ratios
    )
    return Table(
        "fitting the minority, ResNet-50, no regularisation, learning rate 0.5 with cosine",
        "Shwartz-Ziv et al. 2023, section A.10",
        tuple(cells),
        published=(),
        figure=draw,
    )


def _config(plan: Plan, ratio: float) -> ConfigDict:
    return plan.config(
        "CIFAR-10-LT",
        "erm",
        model="resnet50_cifar",
        ir=1 / ratio,
        epochs=EPOCHS,
        data__augment=(),
        data__profile="step",
        data__limit=round(TOTAL / (CLASSES // 2) / (1 + ratio)),
        optimizer__learning_rate=0.5,
        optimizer__schedule="cosine",
        optimizer__milestones=(),
        optimizer__warmup_epochs=0,
        optimizer__weight_decay=0.0,
        eval__train=True,
        eval__every_epochs=1,
        eval__test="end",
    )


def draw(rows: Sequence[Row], plan: Plan) -> Drawing:
    """Draws training accuracy by epoch, a panel for minority and majority, a line for each ratio.

    Args:
        rows: of the table, at least one with a finished run.
        plan: of the runs.
    """
    done = {row.cell.method: fitting_of(row) for row in rows if row.workdirs}
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(done)))
    with styled():
        figure = Figure(figsize=(8.4, 3.4))
        panels = figure.subplots(1, len(GROUPS), sharey=True)
        for axes, (group, classes) in zip(panels, GROUPS.items(), strict=True):
            for (name, found), color in zip(done.items(), shades, strict=True):
                shares = 100 * found.accuracy[:, classes].mean(axis=1)
                axes.plot(found.epochs, shares, color=color, lw=1.5, label=name)
            axes.set(title=f"{group} (five classes)", xlabel="completed epochs", ylim=(-2, 102))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        panels[0].set_ylabel("training accuracy (%)")
        panels[-1].legend(loc="lower right")
    numbers = {name: found.to_json() for name, found in done.items()}
    return Drawing(figure, {"caveat": plan.caveat, **numbers})
