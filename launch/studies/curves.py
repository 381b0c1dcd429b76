"""Accuracy over the training ratio: runs on two classes, tables of them, and their figure.

Source: Shwartz-Ziv et al. 2023 ("Simplifying Neural Network Training Under Class Imbalance"),
appendix A.1 to A.7, figures 6 to 11.

A training ratio is the number of images of the smaller class over that of the larger one. The total
is fixed, and the test images are balanced.

READING: in the authors' code such curves are about classes 0 and 1, with 5,000 training images in
all. The ratios of these figures are not given; 0.001 is that of figure 9.
READING: the recipe is that of `two_classes`, and the network its WRN-28-10 wherever the study names
none.
READING: figures 7 and 10 have CIFAR-100 and CINIC-10. All are drawn for CIFAR-10, because two
classes of CIFAR-100 have 1,000 images only.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from ml_collections import ConfigDict

from purenoise_jax.analysis.figure_style import Drawing, literal, styled
from purenoise_jax.training.metrics import standard_error

from ..cells import Row
from ..plan import Cell, Plan, Table
from .two_classes import CLASSES, DATASET, NAMES, counted_config, counts_of

# The larger class of a ratio below 1, and the smaller one.
LARGER, SMALLER = 0, 1
RATIOS = (0.001, 0.003, 0.01, 0.1, 1.0)
MINI_RATIOS = (0.1, 0.3, 1.0)
TOTAL, MINI_TOTAL, QUICK_TOTAL = 5000, 2000, 100
SOURCE = "Shwartz-Ziv et al. 2023, appendix A (figures without numbers)"
# Divisors of a change of accuracy.
BY_BASELINE, BY_ITSELF = "baseline", "itself"
MARKERS = "osD^vPX*"


class Point(NamedTuple):
    """A value at one training ratio.

    Attributes:
        ratio: in (0, 1].
        values: of every seed.
    """

    ratio: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def error(self) -> float | None:
        """Standard error over the seeds; None for a single one."""
        return standard_error(self.values) if len(self.values) > 1 else None


def ratios_of(plan: Plan) -> tuple[float, ...]:
    """The training ratios of a plan."""
    return MINI_RATIOS if plan.mini or plan.quick else RATIOS


def curve_config(plan: Plan, ratio: float, method: str = "erm", **fields: Any) -> ConfigDict:
    """Builds the config of one point of a curve.

    Args:
        plan: of all runs.
        ratio: training ratio.
        method: methods of a config, joined by +.
        **fields: those of `Plan.config`; they replace the common ones.
    """
    total = QUICK_TOTAL if plan.quick else MINI_TOTAL if plan.mini else TOTAL
    own = {"data__classes": CLASSES, "data__class_counts": counts_of(ratio, total)}
    return counted_config(plan, DATASET, method, **own | fields)


def curve_table(
    plan: Plan,
    title: str,
    lines: Mapping[str, Callable[[float], ConfigDict] | str],
    *,
    baseline: str,
    divisors: Sequence[str] = (BY_BASELINE,),
    pretraining: Mapping[str, ConfigDict] | None = None,
) -> Table:
    """Makes the table of a study, with its figure.

    Args:
        plan: of all runs.
        title: of the study.
        lines: setting -> its config at a training ratio, or what it needs to be run.
        baseline: the setting that the others are compared with.
        divisors: how changes of accuracy are drawn, see `change`.
        pretraining: setting -> the run whose network its runs begin with.
    """
    cells = []
    for ratio in ratios_of(plan):
        for name, make in lines.items():
            setting = f"training ratio {ratio:g}"
            if isinstance(make, str):
                cells.append(Cell(setting, name, None, needs=make))
            else:
                first = (pretraining or {}).get(name)
                cells.append(Cell(setting, name, make(ratio), pretraining=first))
    return Table(
        f"{title}, CIFAR-10, {NAMES[LARGER]} and {NAMES[SMALLER]}",
        SOURCE,
        tuple(cells),
        published=(),
        baselines=(baseline,),
        figure=partial(draw, baseline=baseline, divisors=tuple(divisors)),
    )


def change(here: float, baseline: float, divisor: str) -> float:
    """The adjusted accuracy: the change against a baseline as a fraction.

    READING: equation 1 (batch sizes) divides by the accuracy itself, and its text speaks of the
    improvement over the baseline; equation 2 (pretraining) divides by the baseline's.

    Args:
        here: an accuracy in [0, 1].
        baseline: that of the baseline, in [0, 1].
        divisor: `BY_BASELINE` or `BY_ITSELF`.

    Returns:
        The fraction; NaN where the divisor is 0.
    """
    whole = baseline if divisor == BY_BASELINE else here
    return (here - baseline) / whole if whole else float("nan")


def draw(rows: Sequence[Row], plan: Plan, *, baseline: str, divisors: Sequence[str]) -> Drawing:
    """Draws accuracy, accuracy of the smaller class, and change of accuracy over the ratio.

    A line is a setting, a bar one standard error over seeds; changes are paired by seed.

    Args:
        rows: of a table from `curve_table`.
        plan: of the runs.
        baseline: the setting that changes are measured from.
        divisors: a panel for each, see `change`.
    """
    panels = _panels(rows, baseline, divisors)
    names = list(dict.fromkeys(row.cell.method for row in rows if not row.cell.needs))
    count = len(panels)
    columns = 2 if count == 4 else count
    with styled():
        figure = Figure(figsize=(3.0 * columns, 2.7 * (count // columns) + 0.5))
        axes_of = figure.subplots(count // columns, columns, squeeze=False).ravel()
        for axes, (title, lines) in zip(axes_of, panels.items(), strict=True):
            for name, points in lines.items():
                place = names.index(name)
                axes.errorbar(
                    [point.ratio for point in points],
                    [100 * point.mean for point in points],
                    [100 * (point.error or 0) for point in points],
                    color=f"C{place % 8}",
                    marker=MARKERS[place % len(MARKERS)],
                    ms=4,
                    lw=1.4,
                    elinewidth=1,
                    capsize=2,
                    label=literal(name),
                )
            ticks = sorted({point.ratio for points in lines.values() for point in points})
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("training ratio")
            axes.set_title(title, fontsize=10)
        handles, labels = axes_of[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
    numbers = {
        title: {
            name: [
                {"ratio": p.ratio, "mean": p.mean, "standard_error": p.error, "seeds": p.values}
                for p in points
            ]
            for name, points in lines.items()
        }
        for title, lines in panels.items()
    }
    missing = sorted({row.cell.method for row in rows if not row.summaries})
    return Drawing(figure, {"caveat": plan.caveat, "panels": numbers, "missing": missing})


def _panels(
    rows: Sequence[Row], baseline: str, divisors: Sequence[str]
) -> dict[str, dict[str, list[Point]]]:
    """Title of a panel -> setting -> its points."""

    def lines(value: Callable[[Row], dict[int, float]]) -> dict[str, list[Point]]:
        found: dict[str, list[Point]] = {}
        for row in rows:
            by_seed = {s: v for s, v in value(row).items() if np.isfinite(v)}
            if by_seed:
                values = tuple(by_seed[seed] for seed in sorted(by_seed))
                found.setdefault(row.cell.method, []).append(Point(_ratio(row), values))
        return found

    panels = {
        "test accuracy (%)": lines(_accuracy),
        "accuracy of the smaller class (%)": lines(_smaller),
    }
    at = {row.cell.setting: _accuracy(row) for row in rows if row.cell.method == baseline}
    for divisor in divisors:

        def changed(row: Row, divisor: str = divisor) -> dict[int, float]:
            there, here = at.get(row.cell.setting, {}), _accuracy(row)
            return {s: change(here[s], there[s], divisor) for s in here if s in there}

        title = f"change against {baseline} (%)"
        if len(divisors) > 1:
            title += (
                f",\nof {'its own accuracy' if divisor == BY_ITSELF else f'that of {baseline}'}"
            )
        panels[title] = lines(changed)
    return panels


def _ratio(row: Row) -> float:
    """The training ratio of a row, from its setting, because counts are rounded."""
    return float(row.cell.setting.rpartition(" ")[2])


def _accuracy(row: Row) -> dict[int, float]:
    """Seed -> test accuracy in [0, 1], of the finished runs."""
    return {s["seed"]: s["test_accuracy"] for s in row.summaries if s["test_accuracy"] is not None}


def _smaller(row: Row) -> dict[int, float]:
    """Seed -> accuracy of the smaller class in [0, 1]; of another epoch than the last unknown."""
    return {
        s["seed"]: s["per_class_accuracy"][SMALLER]
        for s in row.summaries
        if s.get("per_class_accuracy") is not None
    }
