"""The steps whose programs are read, and the steps that they are compared with."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.gpu_program import absent_gpu, hlo
from benchmarks.gpu_program.kernels import Kernel, kernels
from benchmarks.jax_steps import (
    AUGMENTATIONS,
    FlaxBatchNorm,
    UnguardedStep,
    data_stats,
    network,
    of_kind,
)
from purenoise_jax.data.augment.compose import make_augment
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.schedules import by_step, learning_rates
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.compile_steps import step_program
from purenoise_jax.training.train_step import Inputs, Rows, TrainState, init_state, make_step

WEIGHT_DECAY = 2e-4
# From this height on, images have the augmentations of Zada et al. for ImageNet-LT (appendix D.2).
LARGE, AUGMENTATIONS_LARGE = 96, ("resized_crop", "simclr_scaled", "rotation")


@dataclasses.dataclass(frozen=True)
class Line:
    """A step whose program is read.

    Attributes:
        model: a key of `MODELS`.
        norm: a key of `NORMS`, or "flax" for the plain step of flax and optax: no noise, no guard.
        methods: of the step.
        dtype: of the activations.
        batch_size: rows of all devices.
        devices: over which the batch is split.
        looped: steps are looped on the device, as they are in training.
        guard: whether non-finite results are refused.
        pixels: height and width of the images; large ones have the augmentations of the papers for
            them.
        classes: K.
        remat: activations that the backward pass computes again.
    """

    model: str
    norm: str
    methods: tuple[str, ...]
    dtype: str
    batch_size: int = 128
    devices: int = 1
    looped: bool = True
    guard: bool = True
    pixels: int = 32
    classes: int = 10
    remat: str = "none"

    @property
    def name(self) -> str:
        """A short description."""
        words = [self.model, self.dtype, self.norm, "+".join(self.methods)]
        if self.pixels != Line.pixels:
            words.append(f"{self.pixels} px")
        if self.remat != Line.remat:
            words.append(f"remat {self.remat}")
        if self.devices > 1:
            words.append(f"{self.devices} devices")
        return " ".join(words + ["unlooped"] * (not self.looped) + ["no guard"] * (not self.guard))


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program and its counts.

    Attributes:
        text: of the optimised program.
        kernels: of one step.
        temporary_bytes: memory beside arguments and results.
    """

    text: str
    kernels: list[Kernel]
    temporary_bytes: int


class PlainStep(UnguardedStep):
    """A step as flax and optax have it: SGD of optax, whose state has the learning rate."""

    def packing(self, state: TrainState) -> None:
        """The state is held as it is."""

    def _optimize(self, state: TrainState, grads: Any, batch: Any) -> tuple[Any, Any]:
        del batch
        tx = optax.chain(
            optax.add_decayed_weights(WEIGHT_DECAY),
            optax.sgd(lambda count: self.lr_fn(count), momentum=0.9),
        )
        # The states of the two are equal but for optax's own count of steps.
        decay, trace = state.opt_state
        inner = (trace, optax.ScaleByScheduleState(count=state.step))
        updates, new = tx.update(grads, (decay, inner), state.params)
        return optax.apply_updates(state.params, updates), (new[0], new[1][0])


def compile_line(line: Line, chip: str) -> Compiled:
    """Compiles a step for a chip that is not there.

    Raises:
        CannotCompileError: this machine cannot.
    """
    placement = Placement(
        line.batch_size, line.devices, absent_gpu.devices(chip, max(line.devices, 1))
    )
    with absent_gpu.traced_for_gpu():
        program, shapes = training_program(line, placement)
        compiled = program.lower(*shapes).compile()
    text = compiled.as_text()
    return Compiled(text, kernels(hlo.parse(text)), compiled.memory_analysis().temp_size_in_bytes)


def training_program(
    line: Line, placement: Placement, options: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Any, tuple[Any, ...]]:
    """Returns the program of a step, not compiled, and the shapes of its arguments.

    Args:
        line: the step.
        placement: of its batch.
        options: of the compiler.
    """
    stats = data_stats(line.pixels, line.classes)
    plain = line.norm == "flax"
    norm = FlaxBatchNorm if plain else line.norm
    model = network(line.model, norm, line.dtype, line.classes, line.remat)
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=WEIGHT_DECAY)
    rates = learning_rates(
        200, learning_rate=0.1, warmup_epochs=5, milestones=(160, 180), gamma=0.01
    )
    steps = int(stats.class_counts.sum()) // line.batch_size
    names = AUGMENTATIONS if line.pixels < LARGE else AUGMENTATIONS_LARGE
    augment = make_augment(names, crop_padding=4, cutout_size=16)
    builder = BatchBuilder(augment, stats.mean, stats.std, line.classes)
    recipe = build_recipe(line.methods, stats, {})
    step = make_step(model, tx, by_step(rates, steps), recipe, builder, 0)
    if plain or not line.guard:
        step = of_kind(PlainStep if plain else UnguardedStep, step)

    def on_all(tree: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement.replicated), tree
        )

    memory = {name: each.init for name, each in recipe.memory.items()}
    state = jax.eval_shape(lambda: init_state(model, tx, stats.image_shape, 0, memory))
    images = int(stats.class_counts.sum())
    inputs = Inputs(
        jax.ShapeDtypeStruct((images, *stats.image_shape), np.uint8),
        jax.ShapeDtypeStruct((images,), np.int32),
    )
    rows = [
        jax.ShapeDtypeStruct((steps, line.batch_size), dtype, sharding=placement.rows)
        for dtype in (np.int32, np.bool_)
    ]
    number = jax.ShapeDtypeStruct((), np.int32, sharding=placement.replicated)
    totals = jax.eval_shape(lambda: EpochMetrics.zero(steps))
    shapes = (*map(on_all, (state, totals, inputs)), Rows(*rows))
    program = step_program(step, placement, looped=line.looped, options=dict(options))
    return program, (*shapes, *[number] * (2 if line.looped else 1))
