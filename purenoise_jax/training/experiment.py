"""All that a run consists of, built from its config; nothing else in training reads a config."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from purenoise_jax.checkpoint.frozen_networks import digest, load_frozen
from purenoise_jax.checkpoint.init_transforms import begin_memories, reset
from purenoise_jax.checkpoint.tree_names import collections
from purenoise_jax.config.fields import FIELDS, config_hash, phase_values
from purenoise_jax.config.resolve import resolved
from purenoise_jax.config.run_record import recorded_fields
from purenoise_jax.data.augment.compose import check_sizes, make_augment
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.dataset import Dataset, limit_test
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.data.sources import registry
from purenoise_jax.data.training_set import TrainingSet, make_training_set
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.schedules import by_step, learning_rates
from purenoise_jax.models import create_model
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.constraints import MAX_INT
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.paths import expand, workdir_path
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.evaluation import Evaluator
from purenoise_jax.training.options import RunOptions
from purenoise_jax.training.shifted_tests import class_shares
from purenoise_jax.training.train_step import (
    Inputs,
    Rows,
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
        reset: parts of the state that get their initial values at its start, of `RESETS`.
        tx: its optimiser, if it has a weight decay of its own; the state of the optimiser has the
            same structure in all phases. None = that of the run.
    """

    start: int
    methods: tuple[str, ...]
    recipe: Recipe
    reset: tuple[str, ...] = ()
    tx: optax.GradientTransformation | None = None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All that a run consists of, checked and built, but not yet on devices or compiled.

    Attributes:
        seed: random seed of everything except the choice of the subset.
        placement: over which devices.
        dataset: as its source returned it.
        training: the long-tailed training set.
        phases: in the order of their starts.
        sampler: says which images each step takes.
        model: from `create_model`.
        tx: from `make_optimizer`.
        rates: f64[E], the learning rate by epoch.
        batch_builder: turns images into a batch.
        identity: JSON values that identify the model and the data in a checkpoint.
        matmul_precision: of steps and evaluation, one of `MATMUL_PRECISIONS`.
        frozen: name -> variables, on the host, of networks that methods use and do not train.
        frozen_models: name -> the model of such a network.
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
    frozen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frozen_models: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
        return make()

    def enter(self, phase: Phase, state: TrainState) -> TrainState:
        """The state with which a phase begins, made from the last state before it."""
        if phase.reset:
            state = reset(state, self.init(), phase.reset)
        before = self.phase_of(phase.start - 1).recipe.memory if phase.start else {}
        begun = {n: m.init for n, m in phase.recipe.memory.items() if n not in before}
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
        later = [other.start for other in self.phases if other.start > phase.start]
        epochs = min([*later, len(self.rates)]) - phase.start
        first, steps = phase.start * self.steps_per_epoch, epochs * self.steps_per_epoch
        return lambda step: ((step - first) / steps).astype(jnp.float32)

    def step_shapes(self) -> tuple[Any, ...]:
        """Shapes, dtypes and shardings of the arguments of a compiled step."""
        placement, rows = self.placement, (self.sampler.steps, self.sampler.batch_size)

        def on_all(array: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=placement.replicated)

        return (
            self.target(),
            jax.tree.map(on_all, jax.eval_shape(lambda: EpochMetrics.zero(rows[0]))),
            jax.tree.map(on_all, self.inputs()),
            Rows(
                jax.ShapeDtypeStruct(rows, np.int32, sharding=placement.rows),
                jax.ShapeDtypeStruct(rows, np.bool_, sharding=placement.rows),
            ),
        )

    def inputs(self) -> Inputs:
        """All that every step reads, on the host."""
        return Inputs(self.training.images, self.training.labels, dict(self.frozen))

    def evaluators(self, batch_size: int) -> dict[str, Evaluator]:
        """An evaluator for the test set, and one for the validation set if there is one."""
        dataset = self.dataset
        splits = {
            "test": (dataset.test_images, dataset.test_labels),
            "val": (dataset.val_images, dataset.val_labels),
        }
        return {
            split: Evaluator(
                self.model,
                images,
                labels,
                batch_builder=self.batch_builder,
                placement=self.placement,
                batch_size=batch_size,
                matmul_precision=self.matmul_precision,
                class_shares=class_shares(self.training.stats.class_counts),
            )
            for split, (images, labels) in splits.items()
            if images is not None and labels is not None
        }

    @property
    def memory(self) -> dict[str, Callable[[Any], Any]]:
        """Name -> (variables) -> the memory of a method before the first step, of all phases."""
        return {n: m.init for phase in self.phases for n, m in phase.recipe.memory.items()}

    def _init(self) -> TrainState:
        shape = self.training.stats.image_shape
        return init_state(self.model, self.tx, shape, self.seed, self.memory)


def run_options(config: ConfigDict) -> RunOptions:
    """Reads the options of a run.

    Args:
        config: validated.
    """
    config = resolved(config)
    checkpoint, data, model = config.checkpoint, config.data, config.model
    return RunOptions(
        config_hash=config_hash(config),
        seed=config.seed,
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        steps_per_call=config.steps_per_call,
        eval_batch_size=config.eval.batch_size,
        eval_every_epochs=config.eval.every_epochs,
        checkpoint_epochs=checkpoint.epochs,
        checkpoint_every_epochs=checkpoint.every_epochs,
        checkpoint_every_steps=checkpoint.every_steps,
        checkpoint_keep=checkpoint.keep,
        init_epoch=config.init_epoch,
        init_aux_bn=config.init_aux_bn,
        fresh=config.fresh,
        model=model.name,
        norm=model.norm,
        noise_grad=model.noise_grad,
        dtype=config.dtype,
        matmul_precision=config.matmul_precision,
        data_indices=data.indices,
        data_profile=data.profile,
        imbalance_ratio=data.imbalance_ratio,
        data_limit=data.limit,
    )


def wants_fresh_start(config: ConfigDict) -> bool:
    """Tells whether a config, validated or not, asks for a start from scratch."""
    return bool(config.get("fresh"))


def init_workdir(config: ConfigDict) -> Path | None:
    """The workdir of the run whose checkpoint a new run begins with; None = random parameters.

    Raises:
        ConfigError: its path is not legal.
    """
    return workdir_path(config.init_from, "init_from") if config.init_from else None


def build(config: ConfigDict) -> Experiment:
    """Reads the data and builds an experiment.

    Args:
        config: validated.

    Raises:
        ConfigError: a field does not fit the data or the devices.
        DataError: the data set is missing, damaged or mislabelled.
    """
    config = resolved(config)
    placement = Placement(config.batch_size, config.num_devices)
    data, opt = config.data, config.optimizer
    dataset = registry.load(
        data.source,
        name=data.name,
        path=_expanded(data.path, "data.path"),
        image_size=data.image_size,
        train_split=data.train_split,
        test_split=data.test_split,
    )
    dataset = limit_test(dataset, data.limit)
    training = make_training_set(
        dataset,
        imbalance_ratio=data.imbalance_ratio,
        profile=data.profile,
        rule=data.rule,
        seed=data.seed,
        indices=_expanded(data.indices, "data.indices"),
        normalize=data.normalize,
        normalize_mean=data.normalize_mean,
        normalize_std=data.normalize_std,
        limit=data.limit,
    )
    placement.check_fits([training.images, dataset.test_images, dataset.val_images])
    stats = training.stats
    arguments = config.method.to_dict()
    fields = sorted(map(phase_values, config.phases.values()), key=lambda p: p["start_epoch"])
    phases = tuple(
        Phase(
            p["start_epoch"],
            p["methods"],
            build_recipe(p["methods"], stats, arguments),
            p["reset"],
            _optimizer(opt, p["weight_decay"]) if p["weight_decay"] >= 0 else None,
        )
        for p in fields
    )
    sizes = {"crop_padding": data.crop_padding, "cutout_size": data.cutout_size}
    check_sizes(data.augment, *stats.image_shape[:2], **sizes)
    augment = make_augment(
        data.augment,
        **sizes,
        rotation_degrees=data.rotation_degrees,
        randaugment_ops=data.randaugment_ops,
        randaugment_magnitude=data.randaugment_magnitude,
        augmix_severity=data.augmix_severity,
    )
    sampler = EpochSampler(training.labels, stats.num_classes, config.batch_size, config.seed)
    if config.num_epochs * sampler.steps > MAX_INT:
        raise ConfigError(
            f"num_epochs={config.num_epochs} of {sampler.steps} steps each are more steps than "
            f"can be counted; legal: at most {MAX_INT // sampler.steps}"
        )
    for phase in phases:
        _check_requirements(phase, config.model)
    model = _model(config, stats.num_classes)
    for phase in phases:
        _check_places(phase, config.model.name, getattr(model, "places", ()))
    experiment = Experiment(
        seed=config.seed,
        placement=placement,
        dataset=dataset,
        training=training,
        phases=phases,
        sampler=sampler,
        model=model,
        tx=_optimizer(opt, opt.weight_decay),
        rates=_rates(config.num_epochs, opt, fields),
        batch_builder=BatchBuilder(
            augment=augment,
            mean=stats.normalize_mean,
            std=stats.normalize_std,
            num_classes=stats.num_classes,
        ),
        identity={
            "model": config.model.name,
            "image_shape": list(stats.image_shape),
            "num_classes": stats.num_classes,
            "class_counts": stats.class_counts.tolist(),
            "dataset_fingerprint": training.fingerprint,
            "dataset_content": training.content,
            "normalize_mean": stats.normalize_mean.tolist(),
            "normalize_std": stats.normalize_std.tolist(),
        },
        matmul_precision=config.matmul_precision,
    )
    return _with_frozen_networks(experiment, config)


def _model(config: ConfigDict, num_classes: int) -> Any:
    model = config.model
    return create_model(
        model.name,
        num_classes=num_classes,
        norm=model.norm,
        noise_grad=model.noise_grad,
        dtype=config.dtype,
        head=model.head,
        projector=model.projector,
        projector_width=model.projector_width,
    )


def _optimizer(opt: ConfigDict, weight_decay: float) -> optax.GradientTransformation:
    return make_optimizer(
        opt.name,
        momentum=opt.momentum,
        weight_decay=weight_decay,
        nesterov=opt.nesterov,
        clip_norm=opt.clip_norm,
    )


def _rates(num_epochs: int, opt: ConfigDict, phases: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The learning rate of every epoch, f64[E]: the run's schedule, or that of a phase's own."""

    def schedule(epochs: int, of: Mapping[str, Any]) -> np.ndarray:
        return learning_rates(
            epochs,
            learning_rate=of["learning_rate"],
            warmup_epochs=of["warmup_epochs"],
            milestones=of["milestones"],
            gamma=of["gamma"],
            schedule=of["schedule"],
        )

    rates = schedule(num_epochs, opt)
    ends = [phase["start_epoch"] for phase in phases[1:]] + [num_epochs]
    for phase, end in zip(phases, ends, strict=True):
        if phase["learning_rate"]:
            start = phase["start_epoch"]
            rates[start:end] = schedule(end - start, phase)
    return rates


def _check_requirements(phase: Phase, model: ConfigDict) -> None:
    """Refuses a model that does not meet a requirement of a method."""
    for name, value in phase.recipe.requires.items():
        if model[name] != value:
            raise ConfigError(
                f"model.{name}={model[name]}, but the phase of {' + '.join(phase.methods)} from "
                f"epoch {phase.start} needs model.{name}={value}"
            )


def _check_places(phase: Phase, name: str, places: Sequence[str]) -> None:
    """Refuses a model without the places at which a method of a phase mixes activations."""
    missing = [place for place in phase.recipe.places if place not in places]
    if missing:
        raise ConfigError(
            f"model.name={name} has no place {', '.join(missing)}, where the phase of "
            f"{' + '.join(phase.methods)} from epoch {phase.start} mixes activations; its places: "
            f"{', '.join(places) or 'none'}"
        )


def _with_frozen_networks(experiment: Experiment, config: ConfigDict) -> Experiment:
    """Loads the networks that methods name, and adds their digests to the run's identity."""
    wanted = {name: run for p in experiment.phases for name, run in p.recipe.frozen.items()}
    if not wanted:
        return experiment
    same = ("model", "image_shape", "num_classes", "normalize_mean", "normalize_std")
    identity = {name: experiment.identity[name] for name in same}
    classes = experiment.training.stats.num_classes
    models, frozen = {}, {}
    for name, run in wanted.items():
        models[name] = _model(_with_model_of(config, name, run), classes)
        target = collections(dataclasses.replace(experiment, model=models[name]).target())
        target = {part: target[part] for part in ("params", "batch_stats") if part in target}
        frozen[name] = load_frozen(name, run, target, identity)
    digests = {name: digest(variables) for name, variables in frozen.items()}
    return dataclasses.replace(
        experiment,
        frozen=frozen,
        frozen_models=models,
        identity={**experiment.identity, "frozen": digests},
    )


def _with_model_of(config: ConfigDict, name: str, run: str) -> ConfigDict:
    """The config with the norm, head and projector of another run, whose network is `name`."""
    there = recorded_fields(config, workdir_path(run, f"network {name}"))
    changed = config.copy_and_resolve_references()
    for field in ("norm", "head", "projector", "projector_width") if there else ():
        described = FIELDS[f"model.{field}"]
        value = there.get(f"model.{field}", described.absent)
        if described.legal.allows(value):
            changed.model[field] = value
    return changed


def _expanded(path: str, field: str) -> str:
    """As `paths.expand`; "" if the field is empty."""
    return str(expand(path, field)) if path else ""
