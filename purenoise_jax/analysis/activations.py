"""Activations of natural and noise images before a norm, after plain batch norm, and after DAR-BN.

The idea comes from Zada, Benou and Irani 2022: figure 4 is an illustration, and figure 5 shows the
first block of a VGG. Here both are measured on a run's own network. The paper does not name the
layer. This figure uses the second norm that the network calls, which in both model families is the
first norm after a convolution inside a block (or the only norm, if the network has one). The batch
is drawn as in the run's phase with noise (as in OPeN's, for a run without noise) and reaches the
layer in training mode through the run's own norms. At that layer, regardless of the run's norm, the
same activations are normalised in two ways: by the moments of all rows (plain batch norm), and by
the moments of each kind, natural and noise (DAR-BN). Both omit the affine parameters, which are the
same for all rows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from purenoise_jax.analysis.features import noisy_batches
from purenoise_jax.analysis.figure_style import COLORS, Drawing, Options, literal, styled
from purenoise_jax.data.batch import Batch
from purenoise_jax.data.pixels import normalize
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run
from purenoise_jax.models.moments import Affine, group_moments, standardize
from purenoise_jax.models.norm_inputs import norm_inputs
from purenoise_jax.runtime import rng

EPSILON = 1e-5
BINS = 80
# The histograms leave out values beyond these quantiles of both kinds together.
TAILS = (0.001, 0.999)
PANELS = {"before": "before {layer}", "bn": "after BN", "dar_bn": "after DAR-BN"}
KINDS = ("natural", "noise")


class Stages(NamedTuple):
    """Activations of valid rows, f32[B, H, W, C] each, and `noise` bool[B], True for noise rows."""

    before: np.ndarray
    bn: np.ndarray
    dar_bn: np.ndarray
    noise: np.ndarray


def normalize_both(x: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Standardises activations by the moments of all rows, and by those of each kind.

    Args:
        x: f32[B, H, W, C].
        noise: bool[B].

    Returns:
        The results of plain batch norm and of DAR-BN, [B, H, W, C] each, before scale and shift.
    """
    zero, valid = jnp.zeros(x.shape[-1], x.dtype), jnp.ones_like(noise)

    def affines(*groups: jax.Array) -> list[Affine]:
        found = group_moments(x, groups, epsilon=EPSILON)
        return [Affine(m, s, zero) for m, s in zip(found.mean, found.inv_std, strict=True)]

    bn = standardize(x, None, valid, *affines(valid), dtype=x.dtype)
    return bn, standardize(x, noise, valid, *affines(~noise, noise), dtype=x.dtype)


def layer_of(paths: Sequence[str]) -> str:
    """Returns the norm to show, from all in the order of their calls: the second, or the only."""
    return paths[min(1, len(paths) - 1)]


def inputs_of_norms(network: Network, batch: Batch, seed: int) -> dict[str, jax.Array]:
    """Returns the input of each norm for a batch in training mode, in the order of their calls.

    Args:
        network: network of a run.
        batch: from `training_batches`.
        seed: seed of dropout.
    """
    batch_builder = network.experiment.batch_builder
    # Without jit, which would sort the names and lose the order of the calls.
    return norm_inputs(
        network.experiment.model,
        network.variables,
        normalize(batch["image"], batch_builder.mean, batch_builder.std),
        batch["noise_mask"],
        batch["valid"],
        train=True,
        rngs={"dropout": rng.root(seed)},
    )


def stages(run: Run, options: Options) -> tuple[str, Stages]:
    """Returns the layer's path in the network and the activations around it for one batch."""
    network = Network(run, options.epoch)
    (batch,) = noisy_batches(run, 1, options.seed)
    seen = inputs_of_norms(network, batch, options.seed)
    path = layer_of(list(seen))
    valid = np.asarray(batch["valid"])
    x = jnp.asarray(seen[path], jnp.float32)[valid]
    noise = batch["noise_mask"][valid]
    arrays = (x, *normalize_both(x, noise), noise)
    return path, Stages(*map(np.asarray, arrays))


def summarize(seen: Stages) -> dict[str, Any]:
    """Computes mean and standard deviation of each kind at each stage, and the shift of the kinds.

    Returns:
        By stage and kind: {"mean", "std"} over all rows, positions and channels, None without a
        row. "shift": for the stage before the norm, the distance of the two kinds' channel means in
        standard deviations of all rows, median and largest over the channels.
    """
    numbers: dict[str, Any] = {}
    masks = {"natural": ~seen.noise, "noise": seen.noise}
    for stage in PANELS:
        values = getattr(seen, stage).astype(np.float64)
        numbers[stage] = {
            kind: {
                "mean": float(values[rows].mean()) if rows.any() else None,
                "std": float(values[rows].std()) if rows.any() else None,
            }
            for kind, rows in masks.items()
        }
    if all(rows.any() for rows in masks.values()):
        x, over = seen.before.astype(np.float64), (0, 1, 2)
        distance = np.abs(x[seen.noise].mean(over) - x[~seen.noise].mean(over))
        shift = distance / np.sqrt(x.var(over) + EPSILON)
        numbers["shift"] = {"median": float(np.median(shift)), "largest": float(shift.max())}
    return numbers


def draw(runs: Sequence[Run], options: Options) -> Drawing:
    """Draws a row of three histograms for each run, over all channels and positions.

    Args:
        runs: at least one.
        options: `epoch` and `seed`.
    """
    numbers = {}
    with styled():
        figure = Figure(figsize=(10, 2.5 * len(runs) + 0.5))
        panels = figure.subplots(len(runs), len(PANELS), squeeze=False)
        for row, run in zip(panels, runs, strict=True):
            path, seen = stages(run, options)
            rows = {"natural": int((~seen.noise).sum()), "noise": int(seen.noise.sum())}
            numbers[run.label] = {"layer": path, "rows": rows, **summarize(seen)}
            for axes, (stage, title) in zip(row, PANELS.items(), strict=True):
                values = getattr(seen, stage)
                low, high = np.quantile(values, TAILS)
                edges = np.linspace(low, high, BINS + 1)
                for color, kind in zip(COLORS, KINDS, strict=False):
                    of_kind = values[seen.noise == (kind == "noise")]
                    if not len(of_kind):
                        continue
                    axes.hist(
                        of_kind.ravel(),
                        edges,
                        density=True,
                        histtype="stepfilled",
                        alpha=0.45,
                        color=color,
                        label=kind,
                    )
                axes.set_yticks([])
                axes.set_ylim(top=1.2 * axes.get_ylim()[1])  # room for the numbers
                title = title.format(layer=path)
                axes.set_title(
                    f"{literal(run.label)}: {title}" if len(runs) > 1 else title, fontsize=10
                )
                axes.annotate(
                    _caption(numbers[run.label][stage]),
                    (0.98, 0.97),
                    xycoords="axes fraction",
                    ha="right",
                    va="top",
                    fontsize=8,
                )
            row[0].set_ylabel("density")
        for axes in panels[-1]:
            axes.set_xlabel("activation")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return Drawing(figure, numbers)


def _caption(stage: dict[str, Any]) -> str:
    lines = [
        # Adding 0 turns -0.0 into 0.0.
        f"{kind}: {round(value['mean'], 2) + 0:.2f} ± {value['std']:.2f}"
        for kind, value in stage.items()
        if value["mean"] is not None
    ]
    return "\n".join(lines)
