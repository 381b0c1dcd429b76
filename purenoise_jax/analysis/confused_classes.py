"""Errors among many classes: where those of each block of classes go, and the most confused pairs.

A matrix of thousands of classes has more cells than a figure has points.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import Drawing, literal, styled
from purenoise_jax.analysis.latest_evaluation import Evaluation
from purenoise_jax.training.confusion import Confusion

BLOCKS, PAIRS = 20, 12
LONGEST = 30  # letters of a name
COLUMNS = 3


def draw(evaluations: Mapping[str, Evaluation]) -> Drawing:
    """Draws for each run where the errors of each block of classes go, and the most confused pairs.

    Args:
        evaluations: at least one, by label of the run.

    Raises:
        ConfigError: a run has no confusion matrix.
    """
    numbers = {
        label: error_numbers(each.confusion(), each.order, each.class_names)
        for label, each in evaluations.items()
    }
    columns = min(len(numbers), COLUMNS)
    rows = -(-len(numbers) // columns)
    shares = [row for shown in numbers.values() for row in shown["block_errors"] if row]
    most = 100 * max(map(max, shares), default=1.0)
    with styled():
        figure = Figure(figsize=(5.2 * columns + 0.6, 9.2 * rows))
        panels = figure.subplots(2 * rows, columns, squeeze=False)
        upper, lower = panels[::2].ravel().tolist(), panels[1::2].ravel().tolist()
        for axes, below, (label, shown) in zip(upper, lower, numbers.items(), strict=False):
            _draw_blocks(axes, shown, most)
            _draw_pairs(below, shown["pairs"], evaluations[label].title)
            if len(numbers) > 1:
                axes.set_title(f"{literal(label)}\n{axes.get_title()}", fontsize=9)
        for axes in upper[len(numbers) :] + lower[len(numbers) :]:
            axes.set_axis_off()
        figure.colorbar(
            upper[0].images[0], ax=upper, label="share of the block's errors (%)", shrink=0.8
        )
    return Drawing(figure, numbers)


def error_numbers(
    confusion: Confusion, order: Sequence[int], class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns a run's errors by block and by pair, as JSON values.

    Args:
        confusion: of K classes.
        order: the classes, the most frequent in training first.
        class_names: K names.

    Returns:
        blocks, the number of classes in each of BLOCKS parts of `order`; block_errors, for each
        block the share of the errors on its images that is predicted to be in each block, or None
        without errors; pairs, the PAIRS pairs with most images, by name, with the number of images
        and the share of the true class.
    """
    parts = np.array_split(np.asarray(order), BLOCKS)
    block = np.empty(confusion.classes, int)
    for i, part in enumerate(parts):
        block[part] = i
    wrong = confusion.true != confusion.predicted
    true, predicted = confusion.true[wrong], confusion.predicted[wrong]
    count = confusion.count[wrong]
    errors = np.zeros((BLOCKS, BLOCKS), np.int64)
    np.add.at(errors, (block[true], block[predicted]), count)
    share = count / confusion.by_true()[true]
    rank = np.empty(confusion.classes, int)
    rank[np.asarray(order)] = np.arange(confusion.classes)
    # Among equals first the largest share of its class, then the most frequent class.
    most = np.lexsort((rank[predicted], rank[true], -share, -count))[:PAIRS]
    return {
        "blocks": [len(part) for part in parts],
        "block_errors": [(row / row.sum()).tolist() if row.any() else None for row in errors],
        "pairs": [
            {
                "true": class_names[true[i]],
                "predicted": class_names[predicted[i]],
                "images": int(count[i]),
                "share": float(share[i]),
            }
            for i in most
        ],
    }


def _draw_blocks(axes: Axes, numbers: dict[str, Any], most: float) -> None:
    """Draws the blocks, the most frequent classes at the top and left; `most` % is darkest."""
    absent = [np.nan] * BLOCKS
    values = 100 * np.array([row or absent for row in numbers["block_errors"]], float)
    axes.set_facecolor("#dddddd")  # visible in the row of a block without errors
    axes.imshow(values, cmap="Blues", vmin=0, vmax=most)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    sizes = sorted({min(numbers["blocks"]), max(numbers["blocks"])})
    each = " or ".join(f"{size:,}" for size in sizes)
    axes.set_xlabel("predicted class (frequent in training ... rare)")
    axes.set_ylabel("true class (rare ... frequent in training)")
    axes.set_title(f"{BLOCKS} blocks of {each} classes: where their errors go", fontsize=9)


def _draw_pairs(axes: Axes, pairs: list[dict[str, Any]], split: str) -> None:
    """Draws a bar for each of the most confused pairs, with its names above it."""
    axes.barh(range(len(pairs)), [pair["images"] for pair in pairs], height=0.28)
    for i, pair in enumerate(pairs):
        text = f"{_short(pair['true'])} \N{RIGHTWARDS ARROW} {_short(pair['predicted'])}"
        axes.text(0, i - 0.2, text, fontsize=8, va="bottom", parse_math=False)
        axes.annotate(
            f"{pair['images']:,} ({100 * pair['share']:.0f} %)",
            (pair["images"], i), (3, 0), textcoords="offset points", fontsize=7, va="center",
        )  # fmt: skip
    axes.set_ylim(PAIRS - 0.5, -0.8)
    axes.set_xlim(0, 1.2 * max((pair["images"] for pair in pairs), default=1))
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    title = f"most confused, true \N{RIGHTWARDS ARROW} predicted: {split} images"
    axes.set_title(title, fontsize=9)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
