"""Cross-field validation: fields that are legal one by one but contradict each other.

Checks that need the data as well are in `training/build.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config.fields import NONE
from purenoise_jax.config.resolve import AUTO
from purenoise_jax.config.validation_images import VALIDATION_RULES
from purenoise_jax.data.sources.lists import NO_LISTS
from purenoise_jax.data.sources.registry import LIST_SOURCES
from purenoise_jax.data.sources.resize import SQUASH
from purenoise_jax.data.view import CROPS, RANDOM_CROP
from purenoise_jax.methods import METHODS, as_method, check_arguments
from purenoise_jax.methods.schedules import COSINE, STEP
from purenoise_jax.runtime.constraints import refuse_idle_statistics
from purenoise_jax.runtime.errors import ConfigError


def check_fields_agree(config: ConfigDict) -> None:
    """Refuses fields of which one would silently cancel another or have no effect.

    Args:
        config: with legal fields.

    Raises:
        ConfigError: one line that names both fields.
    """
    if config.init_from and config.init_epoch >= config.num_epochs:
        _check_only_evaluates(config)
    if config.init_from and not config.init_epoch and config.model.pretrained:
        raise ConfigError(
            f"init_from={config.init_from} with init_epoch=0 and model.pretrained="
            f"{config.model.pretrained} both give the weights to start with; legal: one of them"
        )
    data, opt = config.data, config.optimizer
    refuse_idle_statistics(
        "data.normalize",
        data.normalize,
        {"data.normalize_mean": data.normalize_mean, "data.normalize_std": data.normalize_std},
    )
    for name, unused in dataclasses.asdict(NO_LISTS).items():
        if data[name] != unused and data.source not in LIST_SOURCES:
            raise ConfigError(
                f"data.{name}={data[name]} is used only with data.source=list, but data.source="
                f"{data.source}; legal: {unused!r}"
            )
    _check_crops(data)
    _check_classes(data)
    if data.resize != SQUASH and data.resize_shorter:
        raise ConfigError(
            f"data.resize={data.resize} and data.resize_shorter={data.resize_shorter} are two ways "
            f"to resize; legal: {SQUASH}, or 0"
        )
    if data.resize != SQUASH and not data.image_size:
        raise ConfigError(
            f"data.resize={data.resize} is used only with data.image_size above 0; legal: {SQUASH}"
        )
    rules = [f"data.{name}={data[name]:g}" for name in VALIDATION_RULES if data[name]]
    if len(rules) > 1:
        raise ConfigError(
            f"{rules[0]} and {rules[1]} are two rules for the validation images; legal: 0 for one "
            "of them"
        )
    if data.group_column and data.val_per_class:
        raise ConfigError(
            f"data.val_per_class={data.val_per_class} draws images one by one, but "
            f"data.group_column={data.group_column} keeps groups together; legal: 0, and "
            "data.val_fraction or data.folds"
        )
    if data.folds == 1:
        raise ConfigError("data.folds=1 would leave no image to train with; legal: 0, 2 or more")
    if data.fold >= max(data.folds, 1):
        legal = f"0 .. {data.folds - 1}" if data.folds else "0, because data.folds=0"
        raise ConfigError(f"data.fold={data.fold} is not legal; legal: {legal}")
    if config.eval.patience and config.checkpoint.best == NONE:
        raise ConfigError(
            f"eval.patience={config.eval.patience} counts evaluations without a better one, but "
            f"checkpoint.best={NONE} names no metric; legal: 0, or a metric"
        )
    for name in sorted({m for phase in config.phases.values() for m in phase.methods}):
        check_arguments(name, config.method.get(name, {}), config.batch_size)
    if opt.nesterov and opt.name != "sgd":
        raise ConfigError(
            f"optimizer.nesterov=True is used only with optimizer.name=sgd, but "
            f"optimizer.name={opt.name}; legal: False"
        )
    if opt.nesterov and not opt.momentum:
        raise ConfigError(
            "optimizer.nesterov=True has no effect with optimizer.momentum=0; legal: False, or a "
            "momentum above 0"
        )
    if opt.milestones and opt.warmup_epochs > opt.milestones[0]:
        raise ConfigError(
            f"optimizer.warmup_epochs={opt.warmup_epochs} goes beyond the first of "
            f"optimizer.milestones={opt.milestones}, so the learning rate would still rise where "
            f"it should drop; legal: at most {opt.milestones[0]}"
        )


def _check_classes(data: ConfigDict) -> None:
    """Refuses a choice of classes or class counts beside another choice of the training images."""
    counts, classes = tuple(data.class_counts), tuple(data.classes)
    if counts and classes and len(counts) != len(classes):
        raise ConfigError(
            f"data.class_counts={counts} has {len(counts)} numbers, but data.classes={classes} "
            f"keeps {len(classes)} classes; legal: one number for each"
        )
    if counts:
        for name, unused in (("imbalance_ratio", 0), ("profile", AUTO), ("limit", 0)):
            if data[name] != unused:
                raise ConfigError(
                    f"data.class_counts={counts} and data.{name}={data[name]} both set the number "
                    f"of images of each class; legal: (), or data.{name}={unused}"
                )
    for name, value in (("class_counts", counts), ("classes", classes)):
        if value and data.indices:
            raise ConfigError(
                f"data.{name}={value} and data.indices={data.indices} both choose the training "
                "images; legal: (), or no data.indices"
            )


def _check_only_evaluates(config: ConfigDict) -> None:
    """Refuses a run that begins at its end, or after it, with methods that would have to train."""
    names = sorted({name for phase in config.phases.values() for name in phase.methods})
    training = [name for name in names if not as_method(METHODS[name]).only_evaluates]
    if config.init_epoch == config.num_epochs and not training:
        return
    most = f"at most num_epochs={config.num_epochs}"
    if training:
        most = (
            f"below num_epochs={config.num_epochs}, because {training[0]} has to train, and no "
            "epoch would be left for it"
        )
    raise ConfigError(
        f"init_epoch={config.init_epoch} must be {most}; init_epoch=0 takes over the network alone"
    )


def _check_crops(data: ConfigDict) -> None:
    """Refuses crops of the host that contradict each other, or the size of the images."""
    crops = [name for name in data.augment if name in CROPS]
    if len(crops) > 1:
        raise ConfigError(
            f"data.augment={tuple(data.augment)} crops every image twice; legal: one of "
            f"{', '.join(CROPS)}"
        )
    if data.resize_shorter and not 0 < data.image_size <= data.resize_shorter:
        raise ConfigError(
            f"data.resize_shorter={data.resize_shorter} with data.image_size={data.image_size}: "
            "the crop must fit into the resized image; legal: an image_size from 1 to "
            f"{data.resize_shorter}"
        )
    if RANDOM_CROP in crops and not data.resize_shorter:
        raise ConfigError(
            f"data.augment has {RANDOM_CROP}, so data.resize_shorter=0 is not legal; legal: at "
            f"least data.image_size={data.image_size}"
        )


def refuse_drops_of_a_cosine(
    path: str, fields: Mapping[str, Any] | ConfigDict, gamma: float
) -> None:
    """Refuses drops of the learning rate in a cosine schedule, which has none.

    Args:
        path: of the fields.
        fields: `schedule`, `milestones` and `gamma` of the run or of a phase.
        gamma: its default, which is not refused.

    Raises:
        ConfigError: one line that names both fields.
    """
    if fields["schedule"] != COSINE:
        return
    for name, unused in (("milestones", ()), ("gamma", gamma)):
        if fields[name] != unused:
            raise ConfigError(
                f"{path}.{name}={fields[name]} is used only with {path}.schedule={STEP}, but "
                f"{path}.schedule={COSINE}; legal: {unused}"
            )


def refuse_unfinished_schedule(config: ConfigDict) -> None:
    """Refuses a learning rate schedule whose warm-up or drops the run would not reach.

    Args:
        config: with legal fields.

    Raises:
        ConfigError: one line that names both fields.
    """
    opt = config.optimizer
    never = [epoch for epoch in opt.milestones if epoch >= config.num_epochs]
    if never:
        raise ConfigError(
            f"optimizer.milestones={opt.milestones}: num_epochs={config.num_epochs} ends before "
            f"the drop at epoch {never[0]}, so the learning rate would silently stay the same; "
            "the config argument epochs=N scales the whole schedule; legal: below num_epochs, or "
            "() for a constant rate"
        )
    if opt.warmup_epochs > config.num_epochs:
        raise ConfigError(
            f"optimizer.warmup_epochs={opt.warmup_epochs} goes beyond num_epochs="
            f"{config.num_epochs}, so optimizer.learning_rate={opt.learning_rate} would never "
            "be reached; the config argument epochs=N scales the whole schedule; legal: at most "
            f"{config.num_epochs}, or more epochs"
        )
