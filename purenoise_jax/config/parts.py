"""Shared parts of config files: their arguments, schedules of methods, and presets."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config.fields import default_config
from purenoise_jax.config.resolve import CIFAR_MEAN, CIFAR_STD
from purenoise_jax.config.usual_phases import (
    CIFAR_TIMES,
    Times,
    draws_by_class,
    lay_out,
    parse_methods,
)
from purenoise_jax.data.longtail import long_tail_counts
from purenoise_jax.methods.schedules import COSINE, STEP
from purenoise_jax.runtime.errors import ConfigError, unknown

# Augmentations of increasing strength (paper, figure 3); AutoAugment replaces all others.
AUGMENTS: dict[str, tuple[str, ...]] = {
    "flip_crop": ("flip", "crop"),
    "cutout": ("flip", "crop", "cutout"),
    "simclr": ("flip", "crop", "cutout", "simclr"),
    "autoaugment": ("autoaugment",),
}

# The reproduction draws noise with the constants that it normalises images with.
RESCIENCE_MEAN, RESCIENCE_STD = CIFAR_MEAN, CIFAR_STD
PRESETS = ("paper", "rescience")
# Draws in an epoch of class-balanced sampling: as many as there are images, or K * n_max.
DRAWS = ("train_size", "balanced")


def beside(file: str, name: str) -> ModuleType:
    """Imports another config file of the same folder as a module.

    It is found by its path, because config files are read by path and belong to no package.

    Args:
        file: path of the calling config file, `__file__`.
        name: of the other file, without ".py".

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(file).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{name}_beside", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{path}: there is no such file, and {Path(file).name} needs it")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Types of arguments that not every text can be read as, in words.
NUMBERS = {int: "an integer", float: "a number"}


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Reads the text after the colon in `--config file.py:key=value,key=value`.

    A value that is a text, such as a path, may have commas, unless a "=" follows.

    Args:
        arg: the text; None or "" for none.
        **defaults: the legal keys; a value is read as the type of its default.

    Raises:
        ConfigError: a key is unknown or a value has another type.
    """
    values, parts = dict(defaults), list[str]()
    for part in filter(None, (arg or "").split(",")):
        before = parts[-1].partition("=")[0] if parts else ""
        if "=" not in part and isinstance(defaults.get(before), str):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    for part in parts:
        key, equals, text = part.partition("=")
        if key not in defaults or not equals:
            raise unknown("config argument", part, [f"{k}=" for k in defaults])
        try:
            values[key] = type(defaults[key])(text)
        except ValueError:
            raise ConfigError(
                f"config argument {key}={text!r} must be {NUMBERS[type(defaults[key])]}"
            ) from None
    return ConfigDict(values)


def choose(field: str, value: str, legal: Any) -> None:
    """Refuses a name that is not among the legal ones.

    Raises:
        ConfigError: naming the argument, the value and what is legal.
    """
    if value not in legal:
        raise unknown(f"config argument {field}", value, legal)


def start_config(
    arg: str | None,
    *,
    source: str,
    name: str,
    method: str,
    model: str,
    times: Times,
    head: str = "linear",
    **defaults: Any,
) -> tuple[ConfigDict, ConfigDict]:
    """Starts the config of a data set with a recipe of its own.

    Args:
        arg: the text after the colon; `method`, `model` and `epochs` are always legal.
        source: `data.source`.
        name: `data.name`.
        method: default of the argument.
        model: default of the argument.
        times: of the recipe; its length is the default of the argument `epochs`.
        head: `model.head`, unless a method needs another.
        **defaults: other legal arguments. `ir` is the imbalance ratio of a subset that is cut;
            without it every image is kept.

    Returns:
        The config, and the arguments.

    Raises:
        ConfigError: an argument is not legal.
    """
    args = parse_arg(arg, method=method, model=model, epochs=times.epochs, **defaults)
    config = default_config()
    config.model.head = head
    set_methods(config, args.method, args.epochs, times=times)
    config.model.name = args.model
    config.data.source, config.data.name = source, name
    if "ir" in args:
        config.data.imbalance_ratio = args.ir
    else:
        config.data.profile = "natural"
    return config, args


def set_sgd(config: ConfigDict, batch: int, rate: float, decay: float, gamma: float = 0.1) -> None:
    """Sets batch size, learning rate, weight decay, and the factor of drops if there are any.

    Momentum is 0.9, as in all recipes.
    """
    config.batch_size = batch
    config.optimizer.learning_rate, config.optimizer.weight_decay = rate, decay
    if config.optimizer.schedule == STEP:
        config.optimizer.gamma = gamma


def set_second_stage(config: ConfigDict, epochs: int, rate: float, decay: float) -> None:
    """Gives the second stage of a config a length of its own, and a cosine.

    Args:
        config: with the phase "second_stage"; changed in place.
        epochs: of the stage; at least one is trained.
        rate: learning rate at its start.
        decay: weight decay.
    """
    phase = config.phases.second_stage
    config.num_epochs = phase.start_epoch + max(epochs, 1)
    phase.learning_rate, phase.weight_decay = rate, decay
    phase.schedule, phase.warmup_epochs, phase.milestones = COSINE, 0, ()


def balanced_factor(
    largest: int, num_classes: int, imbalance_ratio: float, profile: str = "exp"
) -> float:
    """Returns the ratio of K * n_max draws to the number of training images, at least 1.

    Args:
        largest: n_max, images of the largest class.
        num_classes: K.
        imbalance_ratio: of the largest to the smallest class.
        profile: of the sizes, see `long_tail_counts`.
    """
    counts = long_tail_counts(
        largest, num_classes, imbalance_ratio=imbalance_ratio, profile=profile
    )
    return num_classes * largest / int(counts.sum())


def set_methods(
    config: ConfigDict,
    method: str,
    epochs: int,
    balanced: float = 1.0,
    times: Times = CIFAR_TIMES,
) -> None:
    """Lays out methods over the papers' schedule, scaled to `epochs`; see `usual_phases.lay_out`.

    Args:
        config: changed in place.
        method: keys of `METHODS` joined by +.
        epochs: of the training, at least 1.
        balanced: factor by which the epochs of class-balanced sampling are stretched. One of the
            papers' epochs has K * n_max draws, ours have as many as there are images; see
            `balanced_factor`.
        times: of the schedule.

    Raises:
        ConfigError: a method is unknown, or there are too few epochs for it.
    """
    names = parse_methods(method)
    lay_out(config, names, epochs, times)
    if balanced == 1:
        return
    if any(phase.learning_rate for phase in config.phases.values()):
        raise ConfigError(
            f"config argument method={method} has a second stage of its own length, which "
            "draws=balanced does not define; legal: draws=train_size"
        )
    drawing = [phase for phase in config.phases.values() if draws_by_class(phase.methods)]
    if not drawing:
        raise ConfigError(
            f"config argument method={method} draws every image once an epoch, so "
            "draws=balanced would have no effect; legal: draws=train_size"
        )
    _stretch(config, min(phase.start_epoch for phase in drawing), balanced)


def _stretch(config: ConfigDict, start: int, factor: float) -> None:
    """Multiplies the epochs from `start` on by a factor, with their drops and warm-up."""

    def stretched(epoch: int) -> int:
        return epoch if epoch <= start else start + round((epoch - start) * factor)

    config.num_epochs = stretched(config.num_epochs)
    config.optimizer.warmup_epochs = stretched(config.optimizer.warmup_epochs)
    config.optimizer.milestones = tuple(map(stretched, config.optimizer.milestones))
    config.checkpoint.epochs = tuple(map(stretched, config.checkpoint.epochs))
    for phase in config.phases.values():
        phase.start_epoch = stretched(phase.start_epoch)


def set_preset(config: ConfigDict, preset: str) -> None:
    """Sets the fields that the paper leaves open: as in its text, or as in the reproduction.

    Args:
        config: changed in place.
        preset: one of `PRESETS`.

    Raises:
        ConfigError: the preset is unknown.
    """
    choose("preset", preset, PRESETS)
    if preset == "paper":
        return
    # For DAR-BN; a config that sets another norm sets this back to "auto".
    config.model.noise_grad = "full_stop"
    config.data.normalize = "explicit"
    config.data.normalize_mean = RESCIENCE_MEAN
    config.data.normalize_std = RESCIENCE_STD
    for method in (config.method.open, config.method.append):
        method.space = "raw"
        method.noise_stats = "explicit"
        method.mean = RESCIENCE_MEAN
        method.std = RESCIENCE_STD
