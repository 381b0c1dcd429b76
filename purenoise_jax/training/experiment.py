"""All that a run consists of, checked and built."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from purenoise_jax.checkpoint.init_transforms import (
    ImportedWeights,
    begin_memories,
    reset,
    reset_memories,
)
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.feed import ResidentFeed, StreamingFeed, row_shapes
from purenoise_jax.data.host_images import HostImages
from purenoise_jax.data.rows import Rows
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.data.training_set import TrainingSet
from purenoise_jax.methods.recipe import Postprocess, Recipe
from purenoise_jax.methods.schedules import by_step
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.evaluation import Evaluator
from purenoise_jax.training.metrics import TRAINING_SET
from purenoise_jax.training.shifted_tests import class_shares
from purenoise_jax.training.train_step import (
    Inputs,
    TrainState,
    TrainStep,
    init_state,
    make_step,
)


@dataclasses.dataclass(frozen=True)
class Phase:
    """Epochs that train with one recipe.

    Attributes:
        start: its first epoch, counted from 0.
        methods: names of the methods that made the recipe.
        recipe: of its steps.
        postprocess: the logits of evaluation, from `class_shares.for_evaluation`.
        reset: parts of the state that get their initial values at its start, of `RESETS`.
        tx: its optimiser, if it has a weight decay of its own; the state of the optimiser has the
            same structure in all phases. None = that of the run.
        frozen: parts of the network that do not train, of `methods.freezing.FREEZABLE`; the recipe
            says the same.
        stage: first epoch of its stage: 0 in the training, and that of a second stage in it.
    """

    start: int
    methods: tuple[str, ...]
    recipe: Recipe
    postprocess: Postprocess
    reset: tuple[str, ...] = ()
    tx: optax.GradientTransformation | None = None
    frozen: tuple[str, ...] = ()
    stage: int = 0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All that a run consists of, checked and built, but not yet on devices or compiled.

    Attributes:
        seed: random seed of everything except the choice of the subset.
        placement: over which devices.
        dataset: as its source returned it, with test and validation images that were held out.
        training: the long-tailed training set.
        phases: in the order of their starts.
        sampler: says which images each step takes.
        model: from `create_model`.
        tx: from `make_optimizer`.
        rates: f64[E], the learning rate by epoch.
        batch_builder: turns images into a batch.
        identity: JSON values that identify the model and the data in a checkpoint.
        matmul_precision: of steps and evaluation, one of `MATMUL_PRECISIONS`.
        workers: number of threads that read images that are not on the devices.
        skips_bad: images that cannot be read are left out; otherwise the first ends the run.
        frozen: name -> variables, on the host, of networks that methods use and do not train.
        frozen_models: name -> the model of such a network.
        pretrained: weights with which the run starts; None = random parameters.
    """

    seed: int
    placement: Placement
    dataset: Dataset
    training: TrainingSet
    phases: tuple[Phase, ...]
    sampler: EpochSampler
    model: Any
    tx: optax.GradientTransformation
    rates: np.ndarray
    batch_builder: BatchBuilder
    identity: dict[str, Any]
    matmul_precision: str = "default"
    workers: int = 1
    skips_bad: bool = False
    frozen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frozen_models: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretrained: ImportedWeights | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last may have fewer rows."""
        return self.sampler.steps

    def phase_of(self, epoch: int) -> Phase:
        """The phase that an epoch, counted from 0, belongs to."""
        return [phase for phase in self.phases if phase.start <= epoch][-1]

    def init(self) -> TrainState:
        """The state before the first step, on every device."""
        make = jax.jit(
            self._init,
            out_shardings=self.placement.replicated,
            compiler_options=compiler_options(once=True),
        )
        if self.pretrained is None:
            return make()
        return self.pretrained.into(make(), self.placement.replicate, self.memory)

    def enter(self, phase: Phase, state: TrainState) -> TrainState:
        """The state with which a phase begins, made from the last state before it."""
        if phase.reset:
            state = reset(state, self.init(), phase.reset)
        before = self.phase_of(phase.start - 1).recipe.memory if phase.start else {}
        kept = {*before} - reset_memories(state, phase.reset)
        begun = {n: m.init for n, m in phase.recipe.memory.items() if n not in kept}
        return begin_memories(state, begun) if phase.start else state

    def target(self) -> TrainState:
        """The shapes, dtypes and shardings of a state."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.placement.replicated),
            jax.eval_shape(self._init),
        )

    def state_bytes(self) -> int:
        """Bytes of a state, in memory or on disk."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.target()))

    def step_fn(self, phase: Phase) -> TrainStep:
        """The training step of a phase, not yet compiled."""
        lr_fn = by_step(self.rates, self.steps_per_epoch)
        return make_step(
            self.model,
            phase.tx or self.tx,
            lr_fn,
            phase.recipe,
            self.batch_builder,
            self.seed,
            self.matmul_precision,
            self._progress_fn(phase),
            self.frozen_models,
        )

    def _progress_fn(self, phase: Phase) -> Callable[[jax.Array], jax.Array]:
        later = [other.stage for other in self.phases if other.stage > phase.stage]
        epochs = min([*later, len(self.rates)]) - phase.stage
        first, steps = phase.stage * self.steps_per_epoch, epochs * self.steps_per_epoch
        return lambda step: ((step - first) / steps).astype(jnp.float32)

    @property
    def streams(self) -> bool:
        """True if images stay on the host, and every step gets its own."""
        return isinstance(self.training.images, HostImages)

    def feed(self, note: Callable[[str], None]) -> ResidentFeed | StreamingFeed:
        """The feed of the training set; see `StreamingFeed`.

        Args:
            note: called with a line about each image that is left out.
        """
        images, labels, placement = self.training.images, self.training.labels, self.placement
        if not isinstance(images, HostImages):
            return ResidentFeed(placement)
        skip = note if self.skips_bad else None
        return StreamingFeed(images, labels, placement, self.workers, skip, self.seed)

    def step_shapes(self) -> tuple[Any, ...]:
        """Shapes, dtypes and shardings of the arguments of a compiled step."""
        placement, rows = self.placement, (self.sampler.steps, self.sampler.batch_size)

        def on_all(array: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=placement.replicated)

        return (
            self.target(),
            jax.tree.map(on_all, jax.eval_shape(lambda: EpochMetrics.zero(rows[0]))),
            jax.tree.map(on_all, self.inputs()),
            row_shapes(placement, rows[1], self.training.stats.image_shape)
            if self.streams
            else Rows(
                jax.ShapeDtypeStruct(rows, np.int32, sharding=placement.rows),
                jax.ShapeDtypeStruct(rows, np.bool_, sharding=placement.rows),
            ),
        )

    def inputs(self) -> Inputs:
        """All that every step reads, on the host."""
        if self.streams:
            return Inputs(None, None, dict(self.frozen))
        draws = any(phase.recipe.class_draw is not None for phase in self.phases)
        return Inputs(
            self.training.images,
            self.training.labels,
            dict(self.frozen),
            self.sampler.by_class if draws else None,
        )

    def evaluators(
        self,
        batch_size: int,
        note: Callable[[str], None] | None = None,
        trained: Inputs | None = None,
    ) -> dict[str, Evaluator]:
        """An evaluator for each split with images: test, validation and, with `trained`, training.

        Args:
            batch_size: the most images of a forward pass.
            note: see `feed`; None = no image is left out.
            trained: `inputs`, on the devices, to evaluate the training images as well; None = they
                are not evaluated.
        """
        dataset = self.dataset
        splits: dict[str, tuple[Any, np.ndarray | None]] = {
            "test": (dataset.test_images, dataset.test_labels),
            "val": (dataset.val_images, dataset.val_labels),
        }
        if trained is not None:
            images = self.training.images if trained.images is None else trained.images
            splits[TRAINING_SET] = (images, self.training.labels)
        shares = class_shares(self.training.stats.class_counts)
        return {
            split: Evaluator(
                self.model,
                images,
                labels,
                batch_builder=self.batch_builder,
                placement=self.placement,
                batch_size=batch_size,
                matmul_precision=self.matmul_precision,
                class_shares=None if split == TRAINING_SET else shares,
                workers=self.workers,
                skip=note if self.skips_bad else None,
                with_logits=split != TRAINING_SET,
            )
            for split, (images, labels) in splits.items()
            if images is not None and labels is not None and len(images)
        }

    @property
    def memory(self) -> dict[str, Callable[[Any], Any]]:
        """Name -> (variables) -> the memory of a method before the first step, of all phases."""
        return {n: m.init for phase in self.phases for n, m in phase.recipe.memory.items()}

    def _init(self) -> TrainState:
        shape = self.training.stats.image_shape
        return init_state(self.model, self.tx, shape, self.seed, self.memory)
