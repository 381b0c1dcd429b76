"""Accuracy of the five frequency groups of classes (Zada et al. 2022, figure 7)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import Drawing, Options, literal, styled
from purenoise_jax.analysis.latest_evaluation import Evaluation, latest_evaluation
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.console import SPLITS
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.metrics import NUM_GROUPS, frequency_groups


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws bars from the rarest to the most frequent fifth of the classes, one for each run.

    Args:
        runs: at least one.
        options: not used.

    Raises:
        ConfigError: a run has no evaluation yet, or fewer classes than groups.
    """
    del options
    numbers = {run.label: _numbers(_evaluation_of(run)) for run in runs}
    with styled():
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.subplots()
        width = 0.8 / len(runs)
        for i, (label, shown) in enumerate(numbers.items()):
            places = np.arange(NUM_GROUPS) + (i - (len(runs) - 1) / 2) * width
            shares = shown["accuracy"]
            heights = [0.0 if share is None else 100 * share for share in shares]
            bars = axes.bar(places, heights, width * 0.92, label=literal(label))
            texts = ["\N{EN DASH}" if share is None else f"{100 * share:.1f}" for share in shares]
            axes.bar_label(bars, texts, fontsize=8 if len(runs) < 4 else 6, padding=2)
        names = _names([shown["images"] for shown in numbers.values()])
        axes.set_xticks(range(NUM_GROUPS), names, fontsize=9)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 109)
        axes.set_yticks(range(0, 101, 20))
        axes.set_ylabel(f"{SPLITS[runs[0].shown]} accuracy (%)")
        axes.set_xlabel("fifths of the classes (training images per class)")
        if len(runs) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return Drawing(figure, numbers)


def _evaluation_of(run: Run) -> Evaluation:
    evaluation = latest_evaluation(run)
    if evaluation.number("group_accuracy") is None:
        raise ConfigError(
            f"{run.path} has no group accuracies: it has {len(evaluation.class_counts)} classes, "
            f"and {NUM_GROUPS} groups need at least {NUM_GROUPS}"
        )
    return evaluation


def _numbers(evaluation: Evaluation) -> dict[str, list]:
    groups = frequency_groups(np.asarray(evaluation.class_counts))
    return {
        "accuracy": evaluation.numbers["group_accuracy"],
        "classes": [group.tolist() for group in groups],
        "images": [[evaluation.class_counts[k] for k in group] for group in groups],
    }


def _names(images: list[list[list[int]]]) -> list[str]:
    names = ["1, rarest", "2", "3", "4", f"{NUM_GROUPS}, most frequent"]
    if any(counts != images[0] for counts in images):
        # Runs on different data have different sizes, so the axis shows none.
        return names
    spans = [(min(counts), max(counts)) for counts in images[0]]
    sizes = [f"{low:,}" if low == high else f"{low:,} .. {high:,}" for low, high in spans]
    return [f"{name}\n({size})" for name, size in zip(names, sizes, strict=True)]
