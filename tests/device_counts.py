"""Trains the same steps on several numbers of devices and measures how the results differ.

`JAX_ENABLE_X64=1 python -m tests.device_counts NETWORK NORM COUNTS` prints it for float64.
"""

import functools
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.augment.compose import make_augment
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.schedules import by_step
from purenoise_jax.models import NORMS
from purenoise_jax.models.resnet_cifar import ResNetCifar
from purenoise_jax.models.wide_resnet import WideResNet
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.compile_steps import compile_steps
from purenoise_jax.training.train_step import Inputs, Rows, TrainState, init_state, make_step
from tests.tiny import TinyNet

# Ten steps per epoch, the last with 5 padded rows: of eight devices one has only padding.
ROWS, STEPS = 16, 10
COUNTS = np.array([110, 35, 10])
LABELS = np.repeat(np.arange(3), COUNTS).astype(np.int32)
IMAGES = np.random.default_rng(0).integers(0, 256, (len(LABELS), 8, 8, 3), np.uint8)
# Two epochs of ERM, one of OPeN.
PHASES = (("erm",), ("erm",), ("open",))
RATES = np.array([0.05, 0.1, 0.01])
HALF = np.full(3, 0.5, np.float32)
STATS = DataStats(COUNTS, (8, 8, 3), *[HALF] * 6)
NETWORKS = {
    "tiny": partial(TinyNet, dropout_rate=0.2),
    "resnet": partial(ResNetCifar, depth=8),
    "wide": partial(WideResNet, depth=10, widen=1),
}


def train(
    network: str,
    norm: Any,
    devices: int,
    dtype: Any,
    *,
    optimizer: str = "sgd",
    phases: Sequence[tuple[str, ...]] = PHASES,
    steps: int = len(PHASES) * STEPS,
) -> dict[str, Any]:
    """Trains on a number of devices.

    Args:
        network: a key of `NETWORKS`.
        norm: a key of `NORMS`, or a class.
        devices: number of devices.
        dtype: dtype of all floats.
        optimizer: a key of `OPTIMIZERS`.
        phases: methods by epoch.
        steps: number of steps.

    Returns:
        params, batch_stats and opt_state, and the sum of the losses of each epoch, on the host.
    """
    placement = Placement(ROWS, devices)
    model, tx, first = make_state(network, norm, dtype, optimizer)
    augment = make_augment(("flip", "crop", "cutout"), crop_padding=1, cutout_size=4)
    batch_builder = BatchBuilder(augment, HALF, HALF, 3, dtype)

    state = jax.tree.map(placement.replicate, first)
    check_dtype(state, dtype)
    sampler = EpochSampler(LABELS, 3, ROWS, seed=0)
    inputs = Inputs(placement.replicate(IMAGES), placement.replicate(LABELS))
    runners, losses = {}, []
    for epoch in range(-(-steps // STEPS)):
        recipe = build_recipe(phases[epoch], STATS, {"open": {"delta": 0.8}})
        if phases[epoch] not in runners:
            parts = (model, tx, by_step(RATES, STEPS), recipe, batch_builder, 0)
            step, data = make_step(*parts), (inputs, Rows(LABELS[:ROWS], LABELS[:ROWS] >= 0))
            batch = jax.eval_shape(step.batch, state.step, *data)
            check_dtype((batch, jax.eval_shape(step.update, state, *data)), dtype)
            runners[phases[epoch]] = compile_steps(step, placement, looped=False)
        rows = Rows(*map(placement.split_rows, sampler.epoch(epoch, recipe.class_probs)))
        totals = jax.tree.map(placement.replicate, EpochMetrics.zero(STEPS))
        count = min(STEPS, steps - epoch * STEPS)
        state, totals = runners[phases[epoch]](state, totals, inputs, rows, 0, count)
        losses.append(totals.sums.row_loss)
        assert jnp.finfo(totals.sums.row_loss.dtype).bits >= jnp.finfo(dtype).bits
        assert not totals.skipped.any()
    assert ("open" in phases[epoch]) == (totals.sums.noise > 0)
    return jax.device_get(
        {name: getattr(state, name) for name in ("params", "batch_stats", "opt_state")}
        | {"loss": losses}
    )


@functools.cache
def make_state(network: str, norm: Any, dtype: Any, optimizer: str) -> tuple[Any, Any, TrainState]:
    """Model, optimizer and the initial state for all numbers of devices, on the host.

    Cached, because its compilation takes as long as that of the step.
    """
    layer = partial(NORMS.get(norm, norm), dtype=dtype, param_dtype=dtype)
    model = NETWORKS[network](num_classes=3, norm=layer, dtype=dtype)
    tx = make_optimizer(optimizer, momentum=0.9, weight_decay=2e-4)

    def init() -> TrainState:
        state = init_state(model, tx, (8, 8, 3), 0)
        params = jax.tree.map(lambda x: x.astype(dtype), state.params)
        return state.replace(params=params, opt_state=tx.init(params))

    state = jax.jit(init, compiler_options=compiler_options(once=True))()
    return model, tx, jax.device_get(state)


def check_dtype(tree: Any, dtype: Any) -> None:
    """Asserts that all floats of a tree of arrays or shapes are of one dtype."""
    found = {x.dtype for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)}
    assert found == {np.dtype(dtype)}, found


def difference(one: Any, other: Any) -> dict[str, float]:
    """The largest relative difference of two results by entry; relative to each array's maximum."""

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.abs(a - b).max() / max(np.abs(a).max(), np.finfo(np.float64).tiny))

    return {
        name: max(jax.tree.leaves(jax.tree.map(apart, one[name], other[name])), default=0.0)
        for name in one
    }


if __name__ == "__main__":
    assert jax.config.jax_enable_x64
    network, norm, *counts = sys.argv[1:]
    # Most of the time is compilation, so that only the small network trains in both phases.
    phases = PHASES if network == "tiny" else [("open",)] * len(PHASES)
    one, *others = (train(network, norm, int(n), jnp.float64, phases=phases) for n in (1, *counts))
    print(json.dumps([difference(one, other) for other in others]))
