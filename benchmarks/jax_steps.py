"""Training steps of this project, ready to be timed."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks.gpu_program.roofline import predicted
from benchmarks.timing import Program
from purenoise_jax.data.augment.compose import make_augment
from purenoise_jax.data.batch import Batch, BatchBuilder
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models import DTYPES, MODELS, create_model
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.flops import flops_of
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training import compile_steps
from purenoise_jax.training.accumulators import EpochMetrics, StepMetrics
from purenoise_jax.training.train_step import (
    Inputs,
    Rows,
    TrainState,
    TrainStep,
    init_state,
    make_step,
)

ROWS = 16
AUGMENTATIONS = ("flip", "crop", "cutout", "simclr")
OPEN = {"delta": 1 / 3, "space": "pixel", "noise_stats": "train_subset", "mean": (), "std": ()}


class FlaxBatchNorm(nn.Module):
    """`flax.linen.BatchNorm` with the call signature of the norms here."""

    use_running_average: bool
    dtype: Any = jnp.float32
    relu: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, noise_mask: jax.Array | None = None, valid: jax.Array | None = None
    ) -> jax.Array:
        """Normalises over all rows."""
        del noise_mask, valid
        y = nn.BatchNorm(self.use_running_average, momentum=0.9, dtype=self.dtype)(x)
        return nn.relu(y) if self.relu else y


def some_noise(key: jax.Array, batch: Batch) -> Batch:
    """Marks three rows of ten as noise without drawing any."""
    del key
    return {**batch, "noise_mask": batch["label"] % 4 == 1}


def data_stats(image_size: int, num_classes: int) -> DataStats:
    """Statistics of a long tail of ratio 100; with ten or a hundred classes, of CIFAR's size."""
    counts = max(50_000 // num_classes, 100) * 0.01 ** (
        np.arange(num_classes) / max(num_classes - 1, 1)
    )
    half, quarter = np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)
    return DataStats(
        counts.astype(int), (image_size, image_size, 3), half, quarter, half, quarter, half, quarter
    )


def step_program(
    model: str | nn.Module,
    norm: Any = "dar_bn",
    dtype: str = "float32",
    *,
    batch_size: int,
    image_size: int = 32,
    num_classes: int = 10,
    devices: int = 1,
    steps_per_call: int = 1,
    calls: int = 1,
    noise: str = "given",
    augment: Sequence[str] = (),
    guard: bool = True,
    options: dict[str, Any] | None = None,
) -> Program:
    """Compiles a training step.

    Args:
        model: a name of `MODELS`, or a module.
        norm: a name of `NORMS`, or the class of a norm.
        dtype: dtype of the activations.
        batch_size: rows of a step.
        image_size: height and width.
        num_classes: K.
        devices: number of devices over which the batch is split.
        steps_per_call: steps per call; more than one are looped on the device.
        calls: calls dispatched before waiting.
        noise: "given" (a mask over 30 % of the rows, no drawing), "drawn" (complete OPeN) or
            "none" (no mask).
        augment: augmentations by name.
        guard: check that the result is finite before keeping it, as training does.
        options: compiler options; None = those of training.

    Returns:
        The program, with "compile_seconds", "memory_bytes" (arguments, results and temporaries on
        one device), "flops" (three times the forward pass's), "traffic" (bytes read and written, as
        the compiler counts them) and "executed_flops" (counted by the compiler) among its facts,
        and on a GPU those of `roofline.predicted`.
    """
    stats = data_stats(image_size, num_classes)
    net = network(model, norm, dtype, num_classes)
    placement = Placement(batch_size, devices)
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=2e-4)
    batch_builder = BatchBuilder(
        make_augment(augment, crop_padding=4, cutout_size=16) if augment else None,
        stats.mean,
        stats.std,
        num_classes,
    )
    if noise == "drawn":
        recipe = build_recipe(["open"], stats, {"open": {**OPEN, "clip": True}})
    else:
        recipe = Recipe(transforms=(some_noise,) if noise == "given" else ())
    step = make_step(net, tx, lambda step: jnp.float32(0.01), recipe, batch_builder, 0)
    if not guard:
        step = of_kind(UnguardedStep, step)

    rng = np.random.default_rng(0)
    rows = max(ROWS, steps_per_call)
    count = rows * batch_size
    size = (count, image_size, image_size, 3)
    images = placement.replicate(rng.integers(0, 256, size, np.uint8))
    inputs = Inputs(
        images, placement.replicate(rng.integers(0, num_classes, count).astype(np.int32))
    )
    epoch = Rows(
        placement.split_rows(np.arange(count, dtype=np.int32).reshape(rows, batch_size)),
        placement.split_rows(np.ones((rows, batch_size), bool)),
    )
    init = partial(init_state, net, tx, stats.image_shape, 0)
    once = compiler_options(once=True)
    state = jax.jit(init, out_shardings=placement.replicated, compiler_options=once)()
    totals = jax.tree.map(placement.replicate, EpochMetrics.zero(rows))

    looped = steps_per_call > 1
    program = compile_steps.step_program(step, placement, looped=looped, options=options)
    number = jax.ShapeDtypeStruct((), np.int32)
    started = time.perf_counter()
    numbers = [number] * (2 if looped else 1)
    compiled = program.lower(state, totals, inputs, epoch, *numbers).compile()
    compile_seconds = time.perf_counter() - started
    box = [state, totals]
    places = itertools.cycle(range(rows))

    def run() -> None:
        for _ in range(calls):
            which = (np.int32(0), np.int32(steps_per_call)) if looped else (np.int32(next(places)),)
            box[:] = compiled(*box, inputs, epoch, *which)
        jax.block_until_ready(box)

    cost = _cost(compiled)
    return Program(
        run,
        calls * steps_per_call,
        {
            "batch_size": batch_size,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            "flops": 3 * flops_of(_forward(net, state), images[:batch_size]),
            "compile_seconds": compile_seconds,
            "memory_bytes": _memory(compiled),
            # The compiler counts one iteration of a loop.
            "traffic": cost.get("bytes accessed"),
            "executed_flops": cost.get("flops"),
            **_predicted(compiled, dtype),
        },
    )


class UnguardedStep(TrainStep):
    """A step that keeps its result whatever it is."""

    def keep(
        self, old: TrainState, new: TrainState, sums: StepMetrics, grads: Any
    ) -> tuple[TrainState, jax.Array]:
        """Returns the new state."""
        del old, sums, grads
        return new, jnp.ones((), bool)


def of_kind(kind: type[TrainStep], step: TrainStep) -> TrainStep:
    """The same step as another class."""
    return kind(**{field.name: getattr(step, field.name) for field in dataclasses.fields(step)})


def network(
    model: str | nn.Module, norm: Any, dtype: str, num_classes: int, remat: str = "none"
) -> Any:
    """Creates a network by its name and the name or class of its norm; a module stays as it is."""
    if not isinstance(model, str):
        return model
    if isinstance(norm, str):
        return create_model(model, num_classes=num_classes, norm=norm, dtype=dtype, remat=remat)
    return MODELS[model](
        num_classes=num_classes,
        norm=partial(norm, dtype=DTYPES[dtype]),
        dtype=DTYPES[dtype],
        # A network of a test has no such argument.
        **({} if remat == "none" else {"remat": remat}),
    )


def _forward(network: Any, state: TrainState) -> Callable[[jax.Array], Any]:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return lambda images: network.apply(variables, images.astype(jnp.float32), train=False)[0]


def _predicted(compiled: Any, dtype: str) -> dict[str, float]:
    """The time by the program on a GPU; empty on a CPU."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return {}
    return predicted(compiled.as_text(), device.device_kind, dtype)


def _memory(compiled: Any) -> int | None:
    found = compiled.memory_analysis()
    if found is None:
        return None
    arguments, results = found.argument_size_in_bytes, found.output_size_in_bytes
    return arguments + results - found.alias_size_in_bytes + found.temp_size_in_bytes


def _cost(compiled: Any) -> dict[str, Any]:
    found = compiled.cost_analysis()
    return dict(found[0] if isinstance(found, list) else found or {})
