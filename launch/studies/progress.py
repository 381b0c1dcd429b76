"""Progress of the training: classification ratio by epoch, accuracy by class on training images.

Source: Ye et al. 2021 (Procrustean training), supplement, sections A.1, A.2 and D.4, figures 8, 9
and 11: ERM and MFW, ResNet-32, CIFAR-10 at ratio 100, long-tailed and with a step. mixup and CDT
are beside them where its tables compare them on long tails. The recipe is that of the table
`procrustean`; MFW is reconstructed.

READING: after every epoch the training images are classified as they are stored, by the network of
that moment in evaluation.
DEVIATION: the mini tier keeps the first images of each class, about 5,000 in all: 2,000 of the
largest class of the long tail, 1,000 of each large class of the step.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from ml_collections import ConfigDict

from purenoise_jax.analysis.classes import by_frequency
from purenoise_jax.analysis.figure_style import Drawing, styled
from purenoise_jax.training.metrics import mean_of

from ..cells import Row
from ..plan import Cell, Plan, Table
from ..procrustean import LONG, MFW, STEP, mfw_recipe, recipe
from .series import Fitting, fitting_of

DATASET = "CIFAR-10-LT"
METHODS = {LONG: ("erm", "mixup", "cdt", "mfw"), STEP: ("erm", "mfw")}
NAMES = {"erm": "ERM", "mixup": "mixup", "cdt": "CDT", "mfw": MFW}
MINI_LIMITS = {LONG: 2000, STEP: 1000}
MARKERS = "osD^"
# Classes whose classification ratio is drawn, by their place in the order of frequency.
SHOWN = ("most frequent", "middle", "rarest")


def progress(plan: Plan) -> Table:
    """Classification ratio by epoch, training and test accuracy by class."""
    cells = [
        Cell(f"CIFAR-10, {profile}, ratio 100", NAMES[method], _config(plan, profile, method))
        for profile, methods in METHODS.items()
        for method in methods
    ]
    return Table(
        "progress of the training, ResNet-32",
        "Ye et al. 2021, supplement, figures 8, 9 and 11",
        tuple(cells),
        groups=True,
        published=(),
        baselines=("ERM",),
        figure=draw,
    )


def _config(plan: Plan, profile: str, method: str) -> ConfigDict:
    fields: dict[str, Any] = {
        "profile": profile,
        "eval__train": True,
        "eval__every_epochs": 1,
        "eval__test": "end",
    }
    if plan.mini:
        fields["data__limit"] = MINI_LIMITS[profile]
    if method == "mfw":
        return mfw_recipe(plan, DATASET, **fields)
    return recipe(plan, DATASET, method, **fields)


def draw(rows: Sequence[Row], plan: Plan) -> Drawing:
    """Draws a row of panels for each setting: three classes' ratios, then accuracies by class.

    Args:
        rows: of the table, at least one with a finished run.
        plan: of the runs.
    """
    done = [row for row in rows if row.workdirs]
    settings = list(dict.fromkeys(row.cell.setting for row in done))
    methods = list(dict.fromkeys(row.cell.method for row in done))
    lines: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    with styled():
        figure = Figure(figsize=(15, 3.3 * len(settings)))
        grid = figure.subplots(len(settings), len(SHOWN) + 2, squeeze=False)
        for panels, setting in zip(grid, settings, strict=True):
            for row in (row for row in done if row.cell.setting == setting):
                # A method looks the same in all settings.
                i = methods.index(row.cell.method)
                look = {"color": f"C{i}"}
                found, tested = fitting_of(row), _test_accuracy(row)
                order = by_frequency(found.class_counts)
                numbers.setdefault(setting, {})[row.cell.method] = {
                    **found.to_json(),
                    "test_accuracy": tested,
                }
                by_class = panels[len(SHOWN) :]
                for axes, k in zip(panels, _shown(order), strict=False):
                    (line,) = axes.plot(found.epochs, 100 * found.ratio[:, k], lw=1.5, **look)
                    lines[row.cell.method] = line
                for axes, shares in zip(by_class, (found.accuracy[-1], tested), strict=True):
                    heights = [np.nan if shares[k] is None else 100 * shares[k] for k in order]
                    places = np.arange(1, len(order) + 1)
                    marker = MARKERS[i % len(MARKERS)]
                    axes.plot(places, heights, marker=marker, ms=4, lw=1, **look)
            # All rows of a setting have the same training images.
            _label(panels, found, order)
            panels[0].set_ylabel(f"{setting}\nclassification ratio (%)")
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)
    return Drawing(figure, {"caveat": plan.caveat, **numbers})


def _shown(order: np.ndarray) -> list[int]:
    return order[[0, len(order) // 2, -1]].tolist()


def _label(panels: Sequence[Axes], found: Fitting, order: np.ndarray) -> None:
    for axes, k, place in zip(panels, _shown(order), SHOWN, strict=False):
        axes.axhline(100, color="#888888", lw=1, ls=":", zorder=0)
        count = found.class_counts[k]
        axes.set_title(f"{place} class, {count:,} images", fontsize=9)
        axes.set_xlabel("completed epochs")
        # Below 0, so that a line of zeros is seen.
        axes.set_ylim(bottom=-3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    for axes, title in zip(panels[len(SHOWN) :], ("training", "test"), strict=True):
        axes.set_title(f"{title} accuracy (%), last epoch", fontsize=9)
        axes.set(xlabel="class, most frequent first", ylim=(-3, 103))


def _test_accuracy(row: Row) -> list[float | None]:
    """Test accuracy of each class, the mean over the finished runs, K values in [0, 1]."""
    by_run = [summary["per_class_accuracy"] for summary in row.summaries]
    return [mean_of(shares) for shares in zip(*by_run, strict=True)]
