"""Training ratio against test ratio: which training set is best for which test set.

Source: Shwartz-Ziv et al. 2023, appendix A.8.1, figures 12 to 14 and 16; figure 15, accuracy
of the minority, is not drawn. A ratio is the number of automobiles over that of airplanes; the
total of training images is fixed. Every network is trained once, and its accuracy at every test
ratio follows from its accuracy in each class.

READING: the authors' code has 25 training ratios from 10^-2.5 to 10^0.43, evenly spaced in
logarithm, and as many test ratios. It makes 5,000 rho images of the second class, which would be
more than all for the largest ratios; here the ratio of the two classes is rho, and the total 5,000.
DEVIATION: the ratio nearest to 1 is 1, so that one of the training sets is balanced, and training
and test ratios are those of the whole numbers of images.
READING: the sizes of figure 16 are not given. Larger totals than 5,000 are not possible, because
at the smallest ratio nearly all images are of one class.
READING: misalignment is "the difference between the best train ratio and the test ratio" in the
mean over test ratios. It is measured in powers of ten here, because the differences of the ratios
themselves are those of the largest ones alone; these, and the accuracy that is lost by training at
the test ratio, are reported beside it.

The best training ratio is chosen on the test images, as in the source, so its accuracy is somewhat
too high. Seeds change parameters and batches and not the choice of images, so standard errors do
not contain the latter.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import Drawing, styled

from ..cells import Row
from ..plan import Cell, Plan, Table
from .two_classes import (
    NAMES,
    SOURCE,
    class_accuracies,
    counts_of,
    length_note,
    rounded,
    standard_errors,
    two_class_config,
)

EXPONENTS = (-2.5, 0.43)
NUMBER, MINI_NUMBER, QUICK_NUMBER = 25, 9, 3
TOTALS, MINI_TOTALS = (1250, 2500, 5000), (1000, 5000)
SAME, BALANCED, BEST = "ratio of the test set", "balanced", "best of all ratios"
MARKERS = "osD^"


class Study(NamedTuple):
    """The networks of one size of the training set.

    Attributes:
        total: training images of both classes.
        counts: int[R, 2], training images of each class, by rising ratio.
        accuracy: f64[R, R], mean over seeds of the accuracy of the networks of a training ratio
            (row) at a test ratio (column), in [0, 1].
        error: f64[R, R], its standard error; 0 with a single seed.
    """

    total: int
    counts: np.ndarray
    accuracy: np.ndarray
    error: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """Second class over first, of training and test sets alike, f64[R], rising."""
        return self.counts[:, 1] / self.counts[:, 0]


def ratios(plan: Plan) -> Table:
    """Training ratios of two classes, each evaluated at all test ratios."""
    small = plan.mini or plan.quick
    number = QUICK_NUMBER if plan.quick else MINI_NUMBER if plan.mini else NUMBER
    cells = []
    for total in MINI_TOTALS if small else TOTALS:
        for ratio in grid(number):
            config = two_class_config(plan, counts_of(ratio, total))
            first, second = counts_of(ratio, total)
            name = f"ratio {second / first:.3g}: {first:,} + {second:,}"
            cells.append(Cell(f"{total:,} training images", name, config))
    return Table(
        f"training ratio against test ratio, CIFAR-10, {' + '.join(NAMES)}{length_note(plan)}; "
        "below the accuracy on a balanced test set",
        SOURCE,
        tuple(cells),
        published=(),
        figure=draw,
    )


def grid(number: int) -> np.ndarray:
    """Ratios evenly spaced in logarithm, of which the one nearest to 1 is 1, f64[number]."""
    exponents = np.linspace(*EXPONENTS, number)
    exponents[np.abs(exponents).argmin()] = 0
    return 10.0**exponents


def accuracy_at(class_accuracy: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Accuracy on test sets of given ratios of two classes.

    A test set with n images of the first class and n * ratio of the second, of which the same
    shares are right, has (a_0 + ratio * a_1) / (1 + ratio) of all right.

    Args:
        class_accuracy: f64[..., 2], the share of each class that is right, in [0, 1].
        ratio: f64[T], images of the second class over those of the first.

    Returns:
        f64[..., T].
    """
    first, second = class_accuracy[..., 0, None], class_accuracy[..., 1, None]
    return (first + ratio * second) / (1 + ratio)


def policies(study: Study) -> dict[str, np.ndarray]:
    """The place of the training ratio that each policy takes for each test ratio, int[R].

    Balanced training is left out if there is no such network. Among several best ratios, such as
    those whose networks predict only one class, the one nearest to the test ratio is taken.
    """
    number = len(study.counts)
    chosen = {SAME: np.arange(number)}
    for place in np.flatnonzero(study.counts[:, 0] == study.counts[:, 1])[:1].tolist():
        chosen[BALANCED] = np.full(number, place)
    exponents = np.log10(study.ratios)
    distance = np.abs(exponents[:, None] - exponents)
    is_best = study.accuracy == study.accuracy.max(axis=0)
    return chosen | {BEST: np.where(is_best, distance, np.inf).argmin(axis=0)}


def misalignment(study: Study) -> dict[str, float]:
    """The gap between training at the best ratio and at the test ratio, mean over test ratios.

    Returns:
        In three units: "powers_of_ten" between the ratios, "ratio" between the ratios themselves,
        "accuracy" between the accuracies, in [0, 1].
    """
    ratio, best = study.ratios, policies(study)[BEST]
    columns = np.arange(len(ratio))
    return {
        "powers_of_ten": float(np.abs(np.log10(ratio[best] / ratio)).mean()),
        "ratio": float(np.abs(ratio[best] - ratio).mean()),
        "accuracy": float((study.accuracy[best, columns] - study.accuracy.diagonal()).mean()),
    }


def studies_of(rows: Sequence[Row]) -> list[Study]:
    """Collects the finished runs by size of the training set, smallest first.

    A training ratio without a finished run is left out, as a test ratio too.
    """
    by_total: dict[int, dict[tuple[int, int], np.ndarray]] = {}
    for row in rows:
        found = class_accuracies(row)
        if row.cell.config is not None and len(found):
            first, second = row.cell.config.data.class_counts
            by_total.setdefault(first + second, {})[first, second] = found
    studies = []
    for total, runs in sorted(by_total.items()):
        ordered = sorted(runs, key=lambda counts: counts[1] / counts[0])
        counts = np.array(ordered, np.int64)
        ratio = counts[:, 1] / counts[:, 0]
        at = [accuracy_at(runs[each], ratio) for each in ordered]
        errors = np.array([standard_errors(seeds) for seeds in at])
        studies.append(Study(total, counts, np.array([s.mean(axis=0) for s in at]), errors))
    return studies


def draw(rows: Sequence[Row], plan: Plan) -> Drawing:
    """Draws policies, best training ratios and misalignment, see the module.

    Args:
        rows: of the table `ratios`.
        plan: of the runs.
    """
    studies = studies_of(rows)
    with styled():
        figure = Figure(figsize=(7.6, 5.8))
        (first, second), (third, fourth) = figure.subplots(2, 2)
        draw_policies(first, studies[-1])
        draw_best(second, studies)
        found = [misalignment(study) for study in studies]
        totals = [study.total for study in studies]
        for axes, unit, factor, label in (
            (third, "powers_of_ten", 1, "misalignment (powers of ten)"),
            (fourth, "accuracy", 100, "accuracy lost (points)"),
        ):
            gaps = [factor * each[unit] for each in found]
            axes.plot(totals, gaps, marker="o", ms=5)
            axes.set_xscale("log")
            axes.set_xticks(totals, [f"{total:,}" for total in totals])
            axes.minorticks_off()
            axes.margins(x=0.15)
            axes.set_ylim(0, 1.15 * max(gaps) or 1)
            axes.set_xlabel("training images")
            axes.set_ylabel(label)
    numbers = {f"{study.total}": numbers_of(study) for study in studies}
    return Drawing(figure, {"caveat": plan.caveat, "training_images": numbers})


def draw_policies(axes: Axes, study: Study, what: str = "images") -> None:
    """Draws the accuracy of each policy against the test ratio; `what` a training set counts."""
    columns = np.arange(len(study.counts))
    for marker, (name, chosen) in zip(MARKERS, policies(study).items(), strict=False):
        mean, error = (100 * values[chosen, columns] for values in (study.accuracy, study.error))
        (line,) = axes.plot(study.ratios, mean, marker=marker, ms=4, lw=1.2, label=name)
        axes.fill_between(
            study.ratios, mean - error, mean + error, color=line.get_color(), alpha=0.2, lw=0
        )
    axes.set_xscale("log")
    axes.set_xlabel("test ratio")
    axes.set_ylabel("test accuracy (%)")
    axes.legend(title=f"training ratio, {study.total:,} {what}", fontsize=8, title_fontsize=8)


def draw_best(axes: Axes, studies: Sequence[Study], what: str = "images") -> None:
    """Draws the best training ratio against the test ratio; `what` a training set counts."""
    ends = [min(s.ratios[0] for s in studies), max(s.ratios[-1] for s in studies)]
    axes.plot(ends, ends, color="#999999", lw=1, ls="--", label="test ratio")
    for marker, study in zip(MARKERS, studies, strict=False):
        best = study.ratios[policies(study)[BEST]]
        axes.plot(study.ratios, best, marker=marker, ms=4, lw=1.2, label=f"{study.total:,} {what}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("test ratio")
    axes.set_ylabel("best training ratio")
    axes.legend(fontsize=8)


def numbers_of(study: Study) -> dict[str, Any]:
    """The numbers of a study as JSON values."""
    columns = np.arange(len(study.counts))
    chosen = policies(study)
    return {
        "class_counts": study.counts.tolist(),
        "ratios": study.ratios.round(5).tolist(),
        "policies": {
            name: {
                "training_ratio": study.ratios[places].round(5).tolist(),
                "test_accuracy": study.accuracy[places, columns].round(5).tolist(),
                "standard_error": rounded(study.error[places, columns]),
            }
            for name, places in chosen.items()
        },
        "misalignment": {unit: round(gap, 5) for unit, gap in misalignment(study).items()},
        "accuracy_by_training_and_test_ratio": study.accuracy.round(5).tolist(),
    }
