"""Counts the FLOPs of the passes that the methods of a phase make in a step.

Nothing is listed by name: the step of the methods is traced around a small network, as it would
be trained, and its convolutions and matrix products are counted. So the second pass of SAM, the
translations of M2m, second views, rows of appended noise, and a backbone without a gradient are
all in it.
"""

import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.chips import flops_of
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import METHODS, arguments_of, build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models import create_model
from purenoise_jax.training.train_step import Inputs, Rows, init_state, make_step

ROWS, SIDE, NETWORK = 8, 16, "resnet8"
# Fields of a recipe that may change the number of passes or rows, or leave a gradient out.
OF_PASSES = (
    "transforms", "generators", "objective", "gradient", "trainable", "train_mode", "frozen",
    "views",
)  # fmt: skip
# Unequal classes, of which one is rare and one frequent.
COUNTS = np.array([200, 50, 10])
LEVEL = np.full(3, 0.5, np.float32)
STATS = DataStats(COUNTS, (SIDE, SIDE, 3), *[LEVEL] * 6)


def passes(config: ConfigDict, methods: tuple[str, ...]) -> float:
    """Returns the FLOPs of a step with some methods over those of a step of plain training.

    The small network has the head of the config, and its projector with the shortest output,
    because a projector would be the larger part of it. Two equal passes that the compiler merges
    into one, as in SAM-A, count twice.

    Args:
        config: with the arguments of the methods.
        methods: of a phase.
    """
    given = {name: dict(config.method.get(name, {})) for name in methods}
    text = json.dumps(given, sort_keys=True)
    return _passes(methods, text, config.model.head, config.model.projector)


@cache
def _passes(methods: tuple[str, ...], arguments: str, head: str, projector: str) -> float:
    given = {
        name: {
            # Paths, such as that of another run, are still to come.
            argument: values.get(argument, each.default) if each.fixed else "-"
            for argument, each in arguments_of(METHODS[name]).items()
        }
        for name, values in json.loads(arguments).items()
    }
    recipe = build_recipe(methods, STATS, given)
    if all(getattr(recipe, name) == getattr(Recipe(), name) for name in OF_PASSES):
        return 1.0
    return _step_flops(recipe, head, projector) / _plain_flops()


@cache
def _plain_flops() -> int:
    return _step_flops(Recipe(), "linear", "none")


def _step_flops(recipe: Recipe, head: str, projector: str) -> int:
    model = create_model(
        NETWORK,
        num_classes=len(COUNTS),
        head=head,
        projector=projector,
        projector_width=0 if projector == "none" else 1,
    )
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=0.0)
    builder = BatchBuilder(None, LEVEL, LEVEL, len(COUNTS))
    step = make_step(model, tx, jnp.ones_like, recipe, builder, seed=0)
    memory = {name: each.init for name, each in recipe.memory.items()}
    state = jax.eval_shape(lambda: init_state(model, tx, STATS.image_shape, 0, memory))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    inputs = Inputs(
        jax.ShapeDtypeStruct((ROWS, *STATS.image_shape), np.uint8),
        jax.ShapeDtypeStruct((ROWS,), np.int32),
        dict.fromkeys(recipe.frozen, variables),
    )
    rows = Rows(jax.ShapeDtypeStruct((ROWS,), np.int32), jax.ShapeDtypeStruct((ROWS,), np.bool_))
    return flops_of(step.update, state, inputs, rows)
