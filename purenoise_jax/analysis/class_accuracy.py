"""Accuracy of every class against its number of training images; many classes are summarised."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, literal, styled
from purenoise_jax.analysis.latest_evaluation import Evaluation, latest_evaluation
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.console import SPLITS

MARKERS = "osD^vP*X"
NAMED = 12  # with more classes, the axis does not show their names
# Width of the axis between the outermost classes, of a character, and of two turned lines.
INCHES, CHARACTER, TURNED = 4.8, 0.075, 0.36
SINGLE = 200  # with more classes, they are drawn as means over classes of like size
PARTS = 30  # into which these are divided


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws one panel with logarithmic class sizes, a marker per class and a colour per run.

    With more than SINGLE classes there is a marker for the mean of all classes of a range of sizes,
    in a band of its standard error.

    Args:
        runs: at least one.
        options: not used.

    Raises:
        ConfigError: a run has no evaluation yet.
    """
    del options
    evaluations = {run.label: latest_evaluation(run) for run in runs}
    numbers = {
        label: {
            "class_names": evaluation.class_names,
            "class_counts": evaluation.class_counts,
            "accuracy": evaluation.numbers["per_class_accuracy"],
        }
        for label, evaluation in evaluations.items()
    }
    with styled():
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.subplots()
        for i, (label, evaluation) in enumerate(evaluations.items()):
            shares = evaluation.numbers["per_class_accuracy"]
            if len(shares) > SINGLE:
                _draw_parts(axes, like_sizes(evaluation.class_counts, shares), i, label)
                continue
            order = evaluation.order
            # A class without test images has no marker. No line joins the others, because classes
            # of neighbouring sizes have nothing to do with each other.
            heights = [math.nan if shares[k] is None else 100 * shares[k] for k in order]
            sizes = [evaluation.class_counts[k] for k in order]
            few = len(sizes) <= NAMED
            axes.plot(
                sizes,
                heights,
                marker=MARKERS[i % len(MARKERS)],
                ms=5 if few else 4,
                ls="",
                alpha=1 if few else 0.8,
                label=literal(label),
            )
        if len(runs) == 1:
            _draw_intervals(axes, *evaluations.values())
        axes.set_xscale("log")
        axes.set_ylim(-4, 104)
        axes.set_ylabel(f"{SPLITS[runs[0].shown]} accuracy (%)")
        _label_classes(axes, list(evaluations.values()))
        if len(runs) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return Drawing(figure, numbers)


def _draw_intervals(axes: Axes, evaluation: Evaluation) -> None:
    """Draws the 95 % interval of every class as a line behind its marker."""
    if len(evaluation.class_counts) > SINGLE or evaluation.counted is None:
        return
    found = [
        (evaluation.class_counts[k], 100 * ends.low, 100 * ends.high)
        for k, ends in enumerate(evaluation.counted[1].per_class)
        if ends is not None
    ]
    axes.vlines(*zip(*found, strict=True), color=COLORS[0], alpha=0.3, lw=2)


def like_sizes(
    class_counts: Sequence[int], shares: Sequence[float | None]
) -> dict[str, list[float]]:
    """Summarises the classes with test images in parts of like size.

    Classes of equal size are in one part, so there are at most PARTS of them, and some are larger.

    Args:
        class_counts: K training images per class.
        shares: K accuracies in [0, 1], None without test images.

    Returns:
        For each part, the smallest first: size, the geometric mean of its classes' training images;
        classes, their number; mean, of their accuracies; error, the standard error of that mean, 0
        for a single class.
    """
    there = [k for k, share in enumerate(shares) if share is not None]
    sizes = np.array([class_counts[k] for k in there], float)
    accuracy = np.array([shares[k] for k in there], float)
    order = np.argsort(sizes, kind="stable")
    sizes, accuracy = sizes[order], accuracy[order]
    least = len(there) / PARTS
    # A part begins where the size changes, once the part before has its share of the classes.
    starts = [0]
    for start in (np.flatnonzero(np.diff(sizes)) + 1).tolist():
        if start - starts[-1] >= least:
            starts.append(start)
    if len(starts) > 1 and len(sizes) - starts[-1] < least:
        starts.pop()
    found: dict[str, list[float]] = {n: [] for n in ("size", "classes", "mean", "error")}
    for start, end in pairwise([*starts, len(sizes)]):
        part = accuracy[start:end]
        found["size"].append(float(np.exp(np.log(sizes[start:end]).mean())))
        found["classes"].append(end - start)
        found["mean"].append(float(part.mean()))
        spread = part.std(ddof=1) if len(part) > 1 else 0.0
        found["error"].append(float(spread / math.sqrt(len(part))))
    return found


def _draw_parts(axes: Axes, parts: dict[str, list[float]], i: int, label: str) -> None:
    mean, error = 100 * np.array(parts["mean"]), 100 * np.array(parts["error"])
    (line,) = axes.plot(
        parts["size"],
        mean,
        marker=MARKERS[i % len(MARKERS)],
        ms=4,
        lw=1,
        label=literal(label),
    )
    axes.fill_between(
        parts["size"], mean - error, mean + error, color=line.get_color(), alpha=0.2, lw=0
    )


def _label_classes(axes: Axes, evaluations: list[Evaluation]) -> None:
    """Names the classes below the axis if they are few, far enough apart, and alike in all runs."""
    first = evaluations[0]
    sizes = [first.class_counts[k] for k in first.order]
    names = [_short(first.class_names[k]) for k in first.order]
    alike = all(evaluation.class_counts == first.class_counts for evaluation in evaluations)
    texts = [f"{name}\n{size:,}" for name, size in zip(names, sizes, strict=True)]
    longest = max(len(line) for text in texts for line in text.split("\n"))
    room = _room(sizes) if alike and len(sizes) <= NAMED else 0.0
    upright = room > CHARACTER * (longest + 1)
    if not (upright or room > TURNED):
        many = len(sizes) > SINGLE
        note = " (means over classes of like size, standard errors)" if many else ""
        note = " (95 % intervals)" if len(evaluations) == 1 and not many else note
        axes.set_xlabel(f"training images of the class{note}")
        _label_sizes(axes, [n for evaluation in evaluations for n in evaluation.class_counts])
        return
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(sizes, texts, fontsize=8, parse_math=False, **({} if upright else turned))
    axes.xaxis.set_minor_locator(NullLocator())
    note = "; 95 % intervals" if len(evaluations) == 1 else ""
    axes.set_xlabel(f"class and its training images{note}")


def _label_sizes(axes: Axes, sizes: Sequence[int]) -> None:
    """Labels the axis with whole numbers of images instead of powers of ten."""
    wide = max(sizes) > 100 * max(min(sizes), 1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 3.0, 5.0)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if abs(value - round(value)) < 1e-6 else "")
    )
    axes.xaxis.set_minor_formatter(NullFormatter())


def _room(sizes: Sequence[int]) -> float:
    """The least distance of two classes on the axis, in inches."""
    if len(sizes) < 2:
        return INCHES
    if sizes[0] == sizes[-1]:
        return 0.0
    logs = np.log(sizes)
    return float(INCHES * np.min(logs[:-1] - logs[1:]) / (logs[0] - logs[-1]))


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"
