"""Test error of the majority and of the minority classes (Shwartz-Ziv et al. 2023, figure 20).

READING: the source does not say which classes are the minority. Here they are the rarer half; with
an odd number of classes the middle one is in the majority. The error of a half is the mean of its
classes' errors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.analysis.latest_evaluation import latest_evaluation
from purenoise_jax.analysis.seeds import seed_groups
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.console import SPLITS
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.metrics import mean_of, standard_error

HALVES = ("majority", "minority")


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws two bars for each run; runs that differ in the seed alone share bars of their means.

    Args:
        runs: at least one.
        options: not used.

    Raises:
        ConfigError: a run has no evaluation yet, or all its classes have as many images.
    """
    del options
    errors = [errors_of(run) for run in runs]
    groups: list[dict[str, Any]] = []
    for name, members in seed_groups(runs):
        row: dict[str, Any] = {"name": name, "runs": [runs[i].label for i in members]}
        for half in HALVES:
            values = [v for i in members if (v := errors[i][half]) is not None]
            row[half] = mean_of(values)
            row[f"{half}_error"] = standard_error(values) if len(values) > 1 else None
        groups.append(row)
    numbers = {run.label: each for run, each in zip(runs, errors, strict=True)}
    return Drawing(_figure(groups, SPLITS[runs[0].shown]), {"runs": numbers, "groups": groups})


def errors_of(run: Run) -> dict[str, Any]:
    """Returns the error of each half in [0, 1], None without test images, and its classes.

    Raises:
        ConfigError: see `draw`.
    """
    evaluation = latest_evaluation(run)
    counts, order = evaluation.class_counts, evaluation.order
    if len(set(counts)) == 1:
        raise ConfigError(
            f"{run.path}: all classes have {counts[0]} training images, so none are a minority"
        )
    middle = (len(order) + 1) // 2
    accuracy = evaluation.numbers["per_class_accuracy"]
    found: dict[str, Any] = {}
    for half, classes in zip(HALVES, (order[:middle], order[middle:]), strict=True):
        mean = mean_of([accuracy[k] for k in classes])
        found[half] = None if mean is None else 1 - mean
        found[f"{half}_classes"] = classes
    return found


def _figure(groups: Sequence[dict[str, Any]], split: str) -> Figure:
    with styled():
        figure = Figure(figsize=(6.4, 1.5 + 0.5 * len(groups)))
        axes = figure.subplots()
        for i, half in enumerate(HALVES):
            means, ends = (
                100 * np.nan_to_num(np.array([group[name] for group in groups], float))
                for name in (half, f"{half}_error")
            )
            places = np.arange(len(groups)) + 0.4 * (i - 0.5)
            error: Any = {"xerr": ends, "error_kw": {"lw": 1}} if ends.any() else {}
            bars = axes.barh(places, means, height=0.37, label=f"{half} classes", **error)
            texts = [_text(group[half], group[f"{half}_error"]) for group in groups]
            axes.bar_label(bars, texts, padding=3, fontsize=8)
        names = [literal(group["name"]) for group in groups]
        axes.set_yticks(range(len(groups)), names, fontsize=9)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 119)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel(f"{split} error (%)")
        several = any(len(group["runs"]) > 1 for group in groups)
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper center",
            ncols=2,
            title="mean ± standard error over seeds" if several else None,
            title_fontsize=9,
        )
    return figure


def _text(mean: float | None, error: float | None) -> str:
    if mean is None:
        return "\N{EN DASH}"
    text = f"{100 * mean:.1f}"
    return text if error is None else f"{text} ± {100 * error:.1f}"
