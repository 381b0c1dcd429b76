"""Counts the passes that the methods of a phase make in a step, by their FLOPs.

Nothing is listed by name: the step of the methods is traced around a network of equal layers, as
it would be trained, and its matrix products are counted. So the second pass of SAM, the
translations of M2m, second views, rows of appended noise, and a backbone without a gradient are all
in it.
"""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.sampling import by_class
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.linear_head import kernel_of
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models.heads import CLASS_SCALE
from purenoise_jax.models.places import PLACES, Mix, unmixed
from purenoise_jax.runtime.flops import flops_of
from purenoise_jax.training.train_step import Inputs, Rows, init_state, make_step

ROWS, SIDE, LAYERS = 8, 4, 20
# Unequal classes, of which one is as rare as can be, because some methods are refused without one.
COUNTS = np.array([10**6, 50, 1])
LEVEL = np.full(3, 0.5, np.float32)
STATS = DataStats(COUNTS, (SIDE, SIDE, 3), *[LEVEL] * 6)
# Fields of a recipe that may change the number of passes or rows, or leave a gradient out.
OF_PASSES = (
    "transforms", "generators", "objective", "gradient", "trainable", "train_mode", "frozen",
    "views",
)  # fmt: skip


def passes(config: ConfigDict, methods: tuple[str, ...]) -> float:
    """Returns the FLOPs of a step with some methods over those of a step of plain training.

    They are those of the passes of the backbone; a projector does not count. Two equal passes that
    the compiler merges into one, as in SAM-A, count twice.

    Args:
        config: with the arguments of the methods.
        methods: of a phase.
    """
    given = {name: dict(config.method.get(name, {})) for name in methods}
    return _passes(methods, json.dumps(given, sort_keys=True), config.model.head)


@cache
def _passes(methods: tuple[str, ...], arguments: str, head: str) -> float:
    recipe = build_recipe(methods, STATS, json.loads(arguments))
    if all(getattr(recipe, name) == getattr(Recipe(), name) for name in OF_PASSES):
        return 1.0
    return _step_flops(recipe, head) / _plain_flops()


@cache
def _plain_flops() -> int:
    return _step_flops(Recipe(), "linear")


class _Layers:
    """Equal layers and a head, with the methods of a Flax module that a step uses.

    Attributes:
        places: at which `mix` is called.
    """

    places: Sequence[str] = PLACES

    def __init__(self, head: str) -> None:
        self._head = head

    def init(self, key: jax.Array, image: jax.Array, *, train: bool) -> dict[str, Any]:
        """Makes the variables, all 0."""
        del key, train
        width, classes = image.size, len(COUNTS)
        fc = {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)}
        # As the heads of the package hold them.
        head: dict[str, Any] = {"fc": fc} if self._head in ("linear", "scaled") else dict(fc)
        if self._head == "scaled":
            head[CLASS_SCALE] = jnp.ones(classes)
        layers = {f"layer{i}": {"kernel": jnp.zeros((width, width))} for i in range(LAYERS)}
        return {"params": {**layers, "head": head}, "batch_stats": {}}

    def apply(
        self,
        variables: dict[str, Any],
        images: jax.Array,
        noise_mask: jax.Array | None = None,
        valid: jax.Array | None = None,
        *,
        train: bool,
        mutable: Sequence[str] = (),
        rngs: Any = None,
        mix: Mix = unmixed,
    ) -> Any:
        """Returns what a network of the package returns, projections included."""
        del noise_mask, valid, train, rngs
        params = variables["params"]
        x = mix("input", images).reshape(len(images), -1)
        for i in range(LAYERS):
            # Not linear, because the gradient of a linear layer would not need the forward pass.
            x = jnp.tanh(x @ params[f"layer{i}"]["kernel"])
        for place in PLACES[1:]:
            x = mix(place, x)
        logits = x @ kernel_of(params)
        projections = dict.fromkeys(("projection", "prediction"), x[:, :1])
        outputs = logits, {"features": x, "plain_logits": logits, **projections}
        return (outputs, {"batch_stats": {}}) if mutable else outputs


def _step_flops(recipe: Recipe, head: str) -> int:
    model = _Layers(head)
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
        by_class(np.arange(ROWS, dtype=np.int32) % len(COUNTS), len(COUNTS)),
    )
    rows = Rows(jax.ShapeDtypeStruct((ROWS,), np.int32), jax.ShapeDtypeStruct((ROWS,), np.bool_))
    return flops_of(step.update, state, inputs, rows)
