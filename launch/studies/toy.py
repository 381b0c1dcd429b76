"""Decision boundaries of a small network on two imbalanced classes in the plane.

    python -m launch.studies.toy --out runs/toy

The main text of Shwartz-Ziv et al. 2023 shows such boundaries. The network trains with the
package's own training step and recipes; only the data and the network are of this module.

READING: data, network and schedule of the source are not published. Here the classes are two
half-moons with Gaussian noise, 300 against 15 points; the network has two hidden layers of 64
units; it trains with SGD (momentum 0.9, weight decay 2e-4) at a rate of 0.1 that follows a cosine,
in batches of 32. LDAM-DRW weights the classes in the last fifth of the steps. Methods have their
default arguments. Coordinates are stored in 8 bits, as pixels are: one point is an image of
1 x 1 pixel with two channels.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from purenoise_jax.analysis.figure_style import COLORS, Drawing, save, styled
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.pixels import to_float
from purenoise_jax.data.sampling import EpochSampler, steps_per_epoch
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models import HEADS
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.console import show
from purenoise_jax.runtime.errors import ConfigError, one_line
from purenoise_jax.runtime.exit_codes import Parser, run_command, run_program
from purenoise_jax.runtime.paths import expand
from purenoise_jax.training.metrics import standard_error
from purenoise_jax.training.train_step import Inputs, Rows, TrainState, init_state, make_step

COUNTS = (300, 15)  # points of the majority and of the minority
TEST_POINTS = 2000  # of each class
NOISE = 0.15  # standard deviation
EPOCHS, BATCH_SIZE, RATE, WEIGHT_DECAY = 300, 32, 0.1, 2e-4
HIDDEN = (64, 64)
SIDE = 256  # values of a coordinate
LOW, HIGH = -1.6, 2.6  # coordinates that the values 0 and 255 stand for
# By title, the methods of the first four fifths of the steps and of the last.
METHODS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ERM": (("erm",), ("erm",)),
    "balanced softmax": (("balanced_softmax",), ("balanced_softmax",)),
    "LDAM-DRW": (("ldam",), ("ldam", "drw")),
    "SAM-A": (("sam_a",), ("sam_a",)),
}


class Mlp(nn.Module):
    """A network of fully connected layers.

    Attributes:
        head: a key of `HEADS`.
    """

    head: str = "linear"

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        noise_mask: jax.Array | None = None,
        valid: jax.Array | None = None,
        *,
        train: bool,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps points [B, 1, 1, 2] to logits [B, 2] and features; nothing depends on `train`."""
        # The training step expects this collection, which a network without norms does not have.
        self.variable("batch_stats", "unused", jnp.zeros, ())
        x = images.reshape(len(images), -1)
        for width in HIDDEN:
            x = nn.relu(nn.Dense(width)(x))
        return HEADS[self.head](len(COUNTS), name="head")(x), {"features": x}


def half_moons(counts: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws points of two half-circles of radius 1 that reach into each other.

    Args:
        counts: points of each.
        rng: source of the angles, uniform, and of the noise.

    Returns:
        Points uint8[N, 1, 1, 2], clipped to [0, 255], and labels i32[N].
    """
    labels = np.repeat(np.arange(2, dtype=np.int32), counts)
    angle = rng.uniform(0, np.pi, len(labels))
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    points = np.where(labels[:, None] == 0, upper, lower) + rng.normal(0, NOISE, (len(labels), 2))
    values = np.clip(np.rint((points - LOW) / (HIGH - LOW) * (SIDE - 1)), 0, SIDE - 1)
    return values.astype(np.uint8)[:, None, None], labels


def plane() -> np.ndarray:
    """Returns every point of the plane, uint8[SIDE * SIDE, 1, 1, 2], rows from the bottom up."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.uint8)[:, None, None]


class Trained(NamedTuple):
    """Results of one network.

    Attributes:
        predicted: int[SIDE, SIDE], classes on the plane, rows from the bottom up.
        accuracy: f64[2], test accuracy of each class in [0, 1].
        area: share of the plane in which the minority is predicted.
    """

    predicted: np.ndarray
    accuracy: np.ndarray
    area: float


def trainer(title: str, epochs: int) -> Callable[[int], Trained]:
    """Builds a function that trains a network with one method, on the data of a seed.

    Args:
        title: a key of METHODS.
        epochs: passes over the points.

    Returns:
        seed -> `Trained`. The seed determines data, initial weights and the order of the points.
    """
    half = np.full(2, 0.5, np.float32)
    stats = DataStats(np.array(COUNTS), (1, 1, 2), half, half, half, half, half, half)
    recipes = [build_recipe(methods, stats, {}) for methods in METHODS[title]]
    model = Mlp(recipes[-1].requires.get("head", "linear"))
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=WEIGHT_DECAY)
    builder = BatchBuilder(None, half, half, len(COUNTS))
    steps = epochs * steps_per_epoch(sum(COUNTS), BATCH_SIZE)

    def rate(step: jax.Array) -> jax.Array:
        return RATE / 2 * (1 + jnp.cos(jnp.pi * step / steps))

    def part(recipe: Recipe) -> Callable[[TrainState, Inputs, Rows], TrainState]:
        step = make_step(model, tx, rate, recipe, builder, seed=0)

        def train(state: TrainState, inputs: Inputs, rows: Rows) -> TrainState:
            def one(state: TrainState, row: Rows) -> tuple[TrainState, None]:
                return step.update(state, inputs, row)[0], None

            return jax.lax.scan(one, state, rows)[0]

        return jax.jit(train, compiler_options=compiler_options())

    @jax.jit
    def predict(variables: Any, points: jax.Array) -> jax.Array:
        logits, _ = model.apply(variables, builder.normalize(to_float(points)), train=False)
        return recipes[-1].postprocess(logits).argmax(axis=1)

    parts = [part(recipe) for recipe in recipes]

    def train(seed: int) -> Trained:
        points, labels = half_moons(COUNTS, np.random.default_rng([seed, 0]))
        sampler = EpochSampler(labels, len(COUNTS), BATCH_SIZE, seed)
        drawn = [sampler.epoch(epoch, None) for epoch in range(epochs)]
        first = round(0.8 * epochs)
        inputs = Inputs(jnp.asarray(points), jnp.asarray(labels))
        state = init_state(model, tx, (1, 1, 2), seed)
        for run, epochs_of_part in zip(parts, (drawn[:first], drawn[first:]), strict=True):
            if epochs_of_part:
                index, valid = (np.concatenate(x) for x in zip(*epochs_of_part, strict=True))
                state = run(state, inputs, Rows(index, valid))
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        test, true = half_moons((TEST_POINTS,) * 2, np.random.default_rng([seed, 1]))
        right = np.asarray(predict(variables, test)) == true
        predicted = np.asarray(predict(variables, plane())).reshape(SIDE, SIDE)
        accuracy = np.array([right[true == k].mean() for k in range(2)])
        return Trained(predicted, accuracy, float(predicted.mean()))

    return train


def draw(found: Mapping[str, Sequence[Trained]]) -> Drawing:
    """Draws the regions of the first seed for each method; the numbers are those of all seeds.

    Args:
        found: by a key of METHODS, a network of each seed.
    """
    with styled():
        figure = Figure(figsize=(2.7 * len(found), 3.7))
        for axes, (title, networks) in zip(
            figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
        ):
            _panel(axes, title, networks)
        handles = axes.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=9)
    numbers = {title: summarize(networks) for title, networks in found.items()}
    return Drawing(figure, {"training_points": list(COUNTS), "methods": numbers})


def summarize(networks: Sequence[Trained]) -> dict[str, Any]:
    """Returns mean and standard error over the seeds of each number; no error with one seed."""
    values = {
        "majority_accuracy": [each.accuracy[0] for each in networks],
        "minority_accuracy": [each.accuracy[1] for each in networks],
        "balanced_accuracy": [each.accuracy.mean() for each in networks],
        "minority_area": [each.area for each in networks],
    }
    found: dict[str, Any] = {"seeds": len(networks)}
    for name, each in values.items():
        found[name] = float(np.mean(each))
        found[f"{name}_error"] = standard_error(each) if len(each) > 1 else None
    return found


def _panel(axes: Axes, title: str, networks: Sequence[Trained]) -> None:
    points, labels = half_moons(COUNTS, np.random.default_rng([0, 0]))
    axes.imshow(
        networks[0].predicted,
        origin="lower",
        cmap=ListedColormap(["#cfe3f1", "#f8dcc8"]),
        vmin=-0.5,
        vmax=1.5,
        interpolation="nearest",
    )
    for k, name in enumerate(("majority", "minority")):
        x, y = points[labels == k, 0, 0].T
        text = f"{name}, {COUNTS[k]} points"
        axes.scatter(x, y, s=7 if k == 0 else 18, color=COLORS[k], lw=0, label=text)
    shown = summarize(networks)
    axes.set_title(f"{title}\n{100 * shown['balanced_accuracy']:.1f} % balanced", fontsize=10)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line's arguments."""
    parse = Parser(
        prog="python -m launch.studies.toy",
        description="Trains small networks on two imbalanced half-moons, and draws their decision "
        "boundaries: toy.png, toy.pdf, and the numbers as toy.json.",
    )
    parse.add_argument("--out", default="runs/toy", metavar="DIR", help="folder for the files")
    parse.add_argument("--seeds", type=int, default=5, help="networks of each method")
    parse.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the points")
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def main(argv: Sequence[str]) -> int:
    """Runs one command line, given without the program's name, and returns its exit code."""
    return run_command(partial(_study, argv), debug="--debug" in argv, interrupted="interrupted")


def _study(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    for name in ("seeds", "epochs"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name}={getattr(args, name)} is not legal; legal: at least 1")
    out = expand(args.out, "--out")
    compilation_cache.enable()
    found = {}
    for title in METHODS:
        train = trainer(title, args.epochs)
        found[title] = [train(seed) for seed in range(args.seeds)]
        row = summarize(found[title])
        show(
            f"{title:<17}balanced accuracy {100 * row['balanced_accuracy']:.1f} %, minority "
            f"{100 * row['minority_accuracy']:.1f} %, its area {100 * row['minority_area']:.1f} %"
        )
    for path in save(draw(found), out, "toy"):
        show(one_line(path))
    return 0


if __name__ == "__main__":
    run_program(main, sys.argv[1:])
