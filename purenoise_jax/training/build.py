"""Builds an experiment from its config; nothing else in training reads a config."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax
from ml_collections import ConfigDict

from purenoise_jax.checkpoint.frozen_networks import digest, load_frozen
from purenoise_jax.checkpoint.init_transforms import ImportedWeights
from purenoise_jax.checkpoint.tree_names import collections
from purenoise_jax.checkpoint.weights_file import read_weights
from purenoise_jax.config.fields import FIELDS, OPTIONAL
from purenoise_jax.config.frozen_fields import refuse_unnamed_networks
from purenoise_jax.config.identity import config_hash
from purenoise_jax.config.phase_fields import phase_values
from purenoise_jax.config.resolve import resolved
from purenoise_jax.config.run_record import recorded_fields
from purenoise_jax.data.augment.compose import check_sizes, make_augment
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.dataset import keep_classes, limit_test, without_test
from purenoise_jax.data.host_images import HostImages
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.lists import NO_LISTS, Lists
from purenoise_jax.data.training_set import HoldOut, make_training_set
from purenoise_jax.data.view import CROPS
from purenoise_jax.methods import METHODS, as_method, build_recipe
from purenoise_jax.methods.class_shares import for_evaluation
from purenoise_jax.methods.freezing import FREEZABLE, in_part, with_frozen
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.methods.schedules import learning_rates
from purenoise_jax.models import create_model
from purenoise_jax.models.pretrained import fit, shapes_of
from purenoise_jax.runtime.constraints import MAX_INT
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.paths import expand, workdir_path
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.runtime.threads import cores
from purenoise_jax.training.experiment import Experiment, Phase
from purenoise_jax.training.options import RunOptions

PARTS = ("images", "labels")


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
        checkpoint_best=checkpoint.best,
        eval_test=config.eval.test,
        eval_train=config.eval.train,
        eval_patience=config.eval.patience,
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
        data_class_counts=data.class_counts,
        imbalance_ratio=data.imbalance_ratio,
        data_limit=data.limit,
        val_rule=_held_out(data).val_rule,
        image_size=data.image_size,
        resize=data.resize,
        augment=data.augment,
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
    refuse_unnamed_networks(config)
    placement = Placement(config.batch_size, config.num_devices)
    data, opt = config.data, config.optimizer
    dataset = load_for(
        data.feed,
        data.source,
        placement.memory,
        skips_bad=data.on_bad == "skip",
        crop=next((name for name in data.augment if name in CROPS), ""),
        resize_shorter=data.resize_shorter,
        name=data.name,
        path=_expanded(data.path, "data.path"),
        image_size=data.image_size,
        resize=data.resize,
        train_split=data.train_split,
        test_split=data.test_split,
        lists=Lists(**{name: data[name] for name in dataclasses.asdict(NO_LISTS)}),
    )
    dataset = limit_test(keep_classes(dataset, data.classes), data.limit)
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
        held_out=_held_out(data),
        class_counts=data.class_counts,
        measured=config.eval.test != OPTIONAL,
    )
    for split in ("val", "test"):
        held_out = {f"{split}_{part}": getattr(training, f"{split}_{part}") for part in PARTS}
        if held_out[f"{split}_images"] is not None:
            dataset = dataclasses.replace(dataset, **held_out)
    if config.eval.patience and dataset.val_images is None:
        raise ConfigError(
            f"eval.patience={config.eval.patience} counts evaluations on validation images, of "
            f"which {dataset.name} has none; legal: 0, or data.val_fraction above 0"
        )
    if config.eval.test == "never":
        if dataset.val_images is None:
            raise ConfigError(
                f"eval.test=never leaves the validation images, of which {dataset.name} has none; "
                "legal: end, or data.val_fraction above 0"
            )
        dataset = without_test(dataset)
    splits = [training.images, dataset.test_images, dataset.val_images]
    placement.check_fits(images for images in splits if not isinstance(images, HostImages))
    stats = training.stats
    arguments = config.method.to_dict()
    fields = sorted(map(phase_values, config.phases.values()), key=lambda p: p["start_epoch"])
    stages = [p["start_epoch"] for p in fields if not p["start_epoch"] or _begins_a_stage(p)]
    recipes = (
        with_frozen(build_recipe(p["methods"], stats, arguments), p["freeze"]).with_head_factor(
            _head_factor(opt, p)
        )
        for p in fields
    )
    phases = tuple(
        Phase(
            p["start_epoch"],
            p["methods"],
            recipe,
            for_evaluation(recipe, stats.class_counts),
            p["reset"],
            _optimizer(opt, p["weight_decay"]) if p["weight_decay"] >= 0 else None,
            p["freeze"],
            max(start for start in stages if start <= p["start_epoch"]),
        )
        for p, recipe in zip(fields, recipes, strict=True)
    )
    sizes = {"crop_padding": data.crop_padding, "cutout_size": data.cutout_size}
    # Those of the device; the others come with the images.
    augmentations = tuple(name for name in data.augment if name not in CROPS)
    check_sizes(augmentations, *stats.image_shape[:2], **sizes)
    augment = make_augment(
        augmentations,
        **sizes,
        color_strength=data.color_strength,
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
        if phase.recipe.class_draw is not None and isinstance(training.images, HostImages):
            raise ConfigError(
                f"the phase of {' + '.join(phase.methods)} from epoch {phase.start} draws its "
                "images within a step, so they must lie on the devices; legal: data.feed=resident"
            )
    model = make_model(config, stats.num_classes)
    for phase in phases:
        _check_places(phase, config.model.name, getattr(model, "places", ()))
    _check_frozen(fields, config.model.name, model, stats.image_shape)
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
            "pretrained": None,
        },
        matmul_precision=config.matmul_precision,
        workers=data.workers or cores(),
        skips_bad=data.on_bad == "skip",
    )
    return _with_frozen_networks(_with_pretrained(experiment, config), config)


def _held_out(data: ConfigDict) -> HoldOut:
    return HoldOut(**{f.name: data[f.name] for f in dataclasses.fields(HoldOut)})


def make_model(config: ConfigDict, num_classes: int) -> Any:
    """The network of a config, from `create_model`.

    Args:
        config: validated.
        num_classes: K.
    """
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
        dropout=model.dropout,
        remat=model.remat,
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
    """The learning rate of every epoch, f64[E]: the run's schedule, or that of a phase's own.

    The run's schedule ends where a second stage begins, unless a phase after it continues it.
    """

    def schedule(epochs: int, of: Mapping[str, Any]) -> np.ndarray:
        return learning_rates(
            epochs,
            learning_rate=of["learning_rate"],
            warmup_epochs=of["warmup_epochs"],
            milestones=of["milestones"],
            gamma=of["gamma"],
            schedule=of["schedule"],
        )

    end = num_epochs
    for phase in reversed(phases):
        if not phase["start_epoch"] or not _begins_a_stage(phase):
            break
        end = phase["start_epoch"]
    rates = schedule(end, opt)
    # A phase without a rate of its own after that end trains nothing.
    rates = np.append(rates, np.full(num_epochs - end, rates[-1]))
    ends = [phase["start_epoch"] for phase in phases[1:]] + [num_epochs]
    for phase, end in zip(phases, ends, strict=True):
        if phase["learning_rate"]:
            start = phase["start_epoch"]
            rates[start:end] = schedule(end - start, phase)
    return rates


def _begins_a_stage(phase: Mapping[str, Any]) -> bool:
    """True if the schedules of the training end where a phase begins.

    It has its own learning rate, or a method of a second stage in which nothing trains.
    """
    usual = [as_method(METHODS[name]).phase for name in phase["methods"]]
    idle = any(each.start >= 1 and not each.learning_rate for each in usual)
    return phase["learning_rate"] > 0 or idle


def _head_factor(opt: ConfigDict, phase: Mapping[str, Any]) -> float:
    """The learning rate of the head over that of the rest, in the schedule that a phase has."""
    of = phase if phase["learning_rate"] else opt
    return of["head_learning_rate"] / of["learning_rate"] if of["head_learning_rate"] else 1.0


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


def _check_frozen(
    phases: Sequence[Mapping[str, Any]], name: str, model: Any, image_shape: tuple[int, int, int]
) -> None:
    """Refuses a part to freeze that the model does not have."""
    frozen = [(phase["start_epoch"], part) for phase in phases for part in phase["freeze"]]
    if not frozen:
        return
    modules = list(shapes_of(model, image_shape)["params"])
    there = [part for part in FREEZABLE if any(in_part((module,), part) for module in modules)]
    for start, part in frozen:
        if part not in there:
            raise ConfigError(
                f"the phase from epoch {start} has freeze={part}, but model.name={name} has no "
                f"such part; legal: {', '.join(there)}"
            )


def _with_pretrained(experiment: Experiment, config: ConfigDict) -> Experiment:
    """Reads the file of weights that the run starts with; its sha256 is in the run's identity."""
    path = config.model.pretrained
    if not path:
        return experiment
    file = read_weights(path, "model.pretrained")
    shapes = shapes_of(experiment.model, experiment.training.stats.image_shape)
    fitted = fit(experiment.model, shapes, file.arrays, f"model.pretrained={path}")
    note = f"{Path(path).name}, sha256 {file.sha256[:12]}; {fitted.head}"
    return dataclasses.replace(
        experiment,
        pretrained=ImportedWeights(fitted.arrays, config.init_aux_bn, note),
        identity={**experiment.identity, "pretrained": file.sha256},
    )


def _with_frozen_networks(experiment: Experiment, config: ConfigDict) -> Experiment:
    """Loads the networks that methods name, and adds their digests to the run's identity."""
    wanted = {name: config.frozen[name] for p in experiment.phases for name in p.recipe.frozen}
    if not wanted:
        return experiment
    same = ("model", "image_shape", "num_classes", "normalize_mean", "normalize_std")
    identity = {name: experiment.identity[name] for name in same}
    classes = experiment.training.stats.num_classes
    models, frozen = {}, {}
    for name, run in wanted.items():
        models[name] = make_model(_with_model_of(config, name, run), classes)
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
    there = recorded_fields(config, workdir_path(run, f"frozen.{name}"))
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
