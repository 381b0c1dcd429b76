"""Magnitude and direction variance of each class's gradient, with and without pure noise.

Zada, Benou and Irani 2022, section 3.3, report that on CIFAR-100-LT "the mean gradient magnitude
and the direction variance" are 2 and 9 times as large with OPeN as with oversampling without noise.
The paper defines neither quantity and does not name the parameters, epoch or batches. Here:

- Both recipes use the same parameters, those of one checkpoint (for the deferred phase, the one
  that it starts from), in training mode and without an update.
- Batches are drawn as in the deferred phase, with the same draws for both recipes: class-balanced,
  with the run's augmentation. With OPeN, noise then replaces some of the images, according to the
  run's `method.open` fields; labels do not change. For a run with appended noise, its batches are
  compared with and without the appended rows.
- g_c, the component of class c, is the gradient of the losses of the batch's rows with label c,
  summed and divided by the rows of the batch. Summed over the classes, the components are the
  gradient of a step, as in the decomposition of the paper's section 3.3.
- Magnitude: the mean of |g_c| over the batches in which c occurs.
- Direction variance: 1 - |mean of g_c / |g_c||^2, the total variance (the trace of the covariance)
  of the directions: 0 if all agree, 1 if they cancel. Batches with a g_c of exactly zero have no
  direction and are left out; with fewer than two directions the variance is undefined. M
  independent random directions give 1 - 1/M. A variance without noise near that value leaves
  little room for a ratio above 1.
- Both are measured over all parameters and over two parts: the last linear layer ("head") and
  everything before it ("backbone"), because with `noise_grad=full_stop` noise reaches only the
  head.
- With more than 20 classes, five groups of classes by frequency take their place, the rarest first.
- The overall ratio is the ratio of means over the classes that have both numbers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purenoise_jax.analysis.classes import by_frequency, class_axis
from purenoise_jax.analysis.features import noise_methods, noisy_batches, training_batches
from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, literal, styled
from purenoise_jax.data.batch import Batch
from purenoise_jax.data.pixels import normalize
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run
from purenoise_jax.methods.recipe import cross_entropy
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.training.metrics import frequency_groups, mean_of

BATCHES = 8
MOST_CLASSES = 20
HEAD = "head"
RECIPES = ("without", "with")
PARTS: dict[str, Callable[[dict], dict]] = {
    "all": lambda tree: tree,
    "backbone": lambda tree: {name: sub for name, sub in tree.items() if name != HEAD},
    "head": lambda tree: {HEAD: tree[HEAD]},
}
PANELS = {"magnitude": "mean gradient magnitude", "variance": "direction variance"}
Gradient = Callable[[Batch, jax.Array, int], dict]


def row_gradient(network: Network, seed: int) -> Gradient:
    """Builds a function that computes the gradient of chosen rows of a batch.

    Args:
        network: source of parameters, norms and `noise_grad`; its `batch_stats` do not change.
        seed: seed of dropout.

    Returns:
        (batch, rows f32[B], number of the batch) -> a tree like the parameters: the gradient of the
        cross-entropies of the valid rows times `rows`, summed, over the number of valid rows. The
        same batch number gives the same dropout.
    """
    model, batch_builder = network.experiment.model, network.experiment.batch_builder

    def loss(params: Any, batch: Batch, rows: jax.Array, key: jax.Array) -> jax.Array:
        (logits, _), _ = model.apply(
            {"params": params, "batch_stats": network.state.batch_stats},
            normalize(batch["image"], batch_builder.mean, batch_builder.std),
            batch["noise_mask"],
            batch["valid"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        weight = jnp.where(batch["valid"], rows, 0)
        return (weight * cross_entropy(logits, batch["target"])).sum() / batch["valid"].sum()

    gradient = jax.jit(jax.grad(loss), compiler_options=compiler_options())

    def of_rows(batch: Batch, rows: jax.Array, number: int) -> dict:
        key = rng.at(rng.root(seed), number)
        return gradient(network.state.params, batch, rows, key)

    return of_rows


class Directions:
    """Accumulates the mean magnitude and the direction variance of vectors, given as trees."""

    def __init__(self) -> None:
        self._sizes: list[float] = []
        self._sum: Any = None

    def add(self, vector: Any) -> None:
        """Adds one vector."""
        size = float(optax.tree.norm(vector))
        self._sizes.append(size)
        if size > 0:
            unit = jax.tree.map(lambda x: x / size, vector)
            self._sum = unit if self._sum is None else jax.tree.map(jnp.add, self._sum, unit)

    @property
    def magnitude(self) -> float | None:
        """The mean magnitude; None without a vector."""
        return mean_of(self._sizes)

    @property
    def variance(self) -> float | None:
        """1 - |mean direction|^2, in [0, 1]; None with fewer than two nonzero vectors."""
        directions = sum(size > 0 for size in self._sizes)
        if directions < 2:
            return None
        return max(1 - float(optax.tree.norm(self._sum) / directions) ** 2, 0.0)


def class_sets(class_counts: np.ndarray) -> list[np.ndarray]:
    """Returns the classes one by one in label order or, above 20, in five groups, rarest first."""
    if len(class_counts) > MOST_CLASSES:
        return frequency_groups(class_counts)
    return [np.array([label]) for label in range(len(class_counts))]


def rows_of_classes(labels: np.ndarray, batch: Batch) -> np.ndarray:
    """Selects the rows that have one of these labels, noise rows included: bool[B]."""
    return np.isin(np.asarray(batch["label"]), labels)


def measure(
    batches: Sequence[Batch], gradient: Gradient, sets: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Measures magnitude and direction variance of each class's gradient over some batches.

    Args:
        batches: see `training_batches`.
        gradient: see `row_gradient`.
        sets: sets of classes; the rows of a set are taken together.

    Returns:
        By part of the parameters: {"magnitude": [sets], "variance": [sets]}, None if undefined.
        "noise": by part, the mean magnitude of the gradient of all noise rows of a batch.
    """
    numbers: dict[str, Any] = {part: {name: [] for name in PANELS} for part in PARTS}

    def accumulate(rows_of: Callable[[Batch], np.ndarray]) -> dict[str, Directions]:
        found = {part: Directions() for part in PARTS}
        for i, batch in enumerate(batches):
            rows = rows_of(batch) & np.asarray(batch["valid"])
            if rows.any():
                vector = gradient(batch, jnp.asarray(rows, jnp.float32), i)
                for part, select in PARTS.items():
                    found[part].add(select(vector))
        return found

    # One set after the other, because each sum of directions is as large as the network.
    for labels in sets:
        found = accumulate(functools.partial(rows_of_classes, labels))
        for part, directions in found.items():
            for name in PANELS:
                numbers[part][name].append(getattr(directions, name))
    noise = accumulate(lambda batch: np.asarray(batch["noise_mask"]))
    numbers["noise"] = {part: directions.magnitude for part, directions in noise.items()}
    return numbers


def compare(without: dict[str, Any], with_noise: dict[str, Any]) -> dict[str, Any]:
    """Computes ratios of means over the classes, with noise over without; None if undefined."""

    def ratio(below: Sequence[float | None], above: Sequence[float | None]) -> float | None:
        pairs = [
            (a, b) for a, b in zip(below, above, strict=True) if a is not None and b is not None
        ]
        low, high = (sum(column) for column in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
        return high / low if low > 0 else None

    return {
        part: {name: ratio(without[part][name], with_noise[part][name]) for name in PANELS}
        for part in PARTS
    }


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a row for each run: both measures of backbone and head, by class, largest class first.

    Args:
        runs: at least one.
        options: `epoch` of the checkpoint and `seed`.
    """
    numbers = {}
    for run in runs:
        network = Network(run, options.epoch)
        gradient = row_gradient(network, options.seed)
        sets = class_sets(run.experiment.training.stats.class_counts)
        plain = training_batches(run, noise_methods(run).without, BATCHES, options.seed)
        noisy = noisy_batches(run, BATCHES, options.seed)
        by_recipe = {
            name: measure(batches, gradient, sets)
            for name, batches in zip(RECIPES, (plain, noisy), strict=True)
        }
        numbers[run.label] = {
            "epoch": int(network.state.step) / network.experiment.steps_per_epoch,
            "noise_grad": run.config.model.noise_grad,
            "batches": BATCHES,
            "classes": [labels.tolist() for labels in sets],
            **by_recipe,
            "ratio": compare(by_recipe["without"], by_recipe["with"]),
        }
    return Drawing(_figure(runs, numbers), numbers)


def _figure(runs: Sequence[Run], numbers: dict[str, Any]) -> Figure:
    columns = [(name, part) for name in PANELS for part in ("backbone", "head")]
    with styled():
        figure = Figure(figsize=(13, 2.6 * len(runs) + 0.9))
        panels = figure.subplots(len(runs), len(columns), squeeze=False)
        for row, run in zip(panels, runs, strict=True):
            for axes, (name, part) in zip(row, columns, strict=True):
                ratio = numbers[run.label]["ratio"][part][name]
                _bars(axes, run, numbers[run.label], part, name)
                times = "" if ratio is None else f", ratio {ratio:.3g}"
                axes.set_title(f"{PANELS[name]}\n{part}{times}", fontsize=10)
            row[0].set_ylabel(f"{literal(run.label)}\n({run.config.model.noise_grad})")
        epochs = sorted({numbers[run.label]["epoch"] for run in runs})
        figure.suptitle(
            f"after epoch {', '.join(f'{epoch:g}' for epoch in epochs)}, {BATCHES} batches "
            f"(independent directions have a variance of {1 - 1 / BATCHES:.3g})",
            fontsize=10,
        )
        handles = axes.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2)
    return figure


def _bars(axes: Axes, run: Run, numbers: dict[str, Any], part: str, name: str) -> None:
    counts = run.experiment.training.stats.class_counts
    grouped = len(counts) > MOST_CLASSES
    order = np.arange(len(numbers["classes"]))[::-1] if grouped else by_frequency(counts)
    for i, recipe in enumerate(RECIPES):
        values = np.array(numbers[recipe][part][name], dtype=float)[order]
        places = np.arange(len(order)) + 0.4 * (i - 0.5)
        axes.bar(places, values, width=0.4, color=COLORS[i], label=f"{recipe} noise")
    axes.grid(axis="x", visible=False)
    if grouped:
        axes.set_xticks(range(len(order)), [f"#{g + 1}" for g in order])
        axes.set_xlabel("group of classes, rarest = #1")
    else:
        class_axis(axes, run, order)
