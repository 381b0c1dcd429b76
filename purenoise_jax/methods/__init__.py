"""Training methods by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import (
    appended_noise,
    decoupled_balanced_softmax,
    label_over_smoothing,
    m2m,
    max_norm,
    mislas,
    nearest_class_mean,
    pure_noise,
    weight_scaling,
)
from purenoise_jax.methods import arguments as signatures
from purenoise_jax.methods.asymmetric_sam import asymmetric_sam
from purenoise_jax.methods.class_balanced_weights import class_balanced_weights
from purenoise_jax.methods.classifier_retraining import SECOND_STAGE, classifier_retraining
from purenoise_jax.methods.cutmix import cutmix
from purenoise_jax.methods.ema import ema
from purenoise_jax.methods.erm import erm
from purenoise_jax.methods.focal import focal
from purenoise_jax.methods.glmc import glmc
from purenoise_jax.methods.imbalanced_sam import focal_sam, imbalanced_sam
from purenoise_jax.methods.joint_ssl import joint_ssl
from purenoise_jax.methods.label_smoothing import label_aware_smoothing, label_smoothing
from purenoise_jax.methods.lade import lade
from purenoise_jax.methods.ldam import ldam
from purenoise_jax.methods.logit_adjustment import logit_adjusted_loss
from purenoise_jax.methods.major_feature_weakening import major_feature_weakening
from purenoise_jax.methods.mamix import mamix
from purenoise_jax.methods.manifold_mixup import manifold_mixup
from purenoise_jax.methods.meta_sampler import meta_sampler
from purenoise_jax.methods.method import DEFERRED, Apply, Method, UsualPhase, as_method
from purenoise_jax.methods.mixup import mixup
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.remix import remix
from purenoise_jax.methods.resampling import class_balanced_sampling
from purenoise_jax.methods.reweighting import adrw, reweighting
from purenoise_jax.methods.sam import sam
from purenoise_jax.methods.simclr import simclr
from purenoise_jax.methods.softmax_equalisation import softmax_equalisation
from purenoise_jax.methods.tau_normalization import tau_normalization
from purenoise_jax.methods.tde import total_direct_effect
from purenoise_jax.methods.vector_scaling import class_dependent_temperatures, vector_scaling
from purenoise_jax.runtime.errors import ConfigError, unknown

LINEAR, SCALED = {"head": "linear"}, {"head": "scaled"}

METHODS: dict[str, Apply | Method] = {
    "erm": Method(erm, only_evaluates=True),
    "rs": class_balanced_sampling,
    # The published name of "rs" in a later phase (deferred).
    "drs": Method(class_balanced_sampling, phase=DEFERRED, listed_as="rs"),
    "open": Method(pure_noise.pure_noise, pure_noise.check, DEFERRED),
    "append": Method(appended_noise.append_noise, appended_noise.check),
    "ldam": Method(ldam, model={"head": "cosine"}),
    "class_balanced": Method(class_balanced_weights, source="Cui et al. 2019"),
    # The published name of "class_balanced" in a later phase (deferred).
    "drw": Method(class_balanced_weights, phase=DEFERRED, source="Cao et al. 2019"),
    "reweight": Method(reweighting, source="Huang et al. 2016; Zhang et al. 2021"),
    "focal": focal,
    "sam": sam,
    "ema": Method(ema, phase=UsualPhase(all_stages=True)),
    "crt": Method(classifier_retraining, phase=SECOND_STAGE),
    "lws": Method(weight_scaling.weight_scaling, phase=weight_scaling.PHASE, model=SCALED),
    "tau_norm": Method(
        tau_normalization, phase=UsualPhase(all_stages=True), model=LINEAR, only_evaluates=True
    ),
    "ncm": Method(
        nearest_class_mean.nearest_class_mean, phase=nearest_class_mean.PHASE, model=LINEAR
    ),
    "mislas": Method(mislas.mislas, phase=mislas.PHASE, model=SCALED),
    "maxnorm": Method(max_norm.max_norm, phase=max_norm.PHASE, model=LINEAR),
    "los": Method(label_over_smoothing.label_over_smoothing, phase=label_over_smoothing.PHASE),
    "decoupled_softmax": Method(
        decoupled_balanced_softmax.decoupled_balanced_softmax,
        phase=decoupled_balanced_softmax.PHASE,
        model=LINEAR,
    ),
    "meta_sampler": Method(meta_sampler, phase=decoupled_balanced_softmax.PHASE, model=LINEAR),
    "m2m": Method(m2m.m2m, phase=DEFERRED, frozen=m2m.FROZEN),
    "sam_a": asymmetric_sam,
    "imbsam": Method(imbalanced_sam, source="Zhou et al. 2023"),
    "focal_sam": Method(focal_sam, source="Li et al. 2025"),
    "mixup": mixup,
    "manifold_mixup": manifold_mixup,
    "cutmix": cutmix,
    "remix": remix,
    "mamix": mamix,
    "mfw": major_feature_weakening,
    "logit_adjustment": Method(logit_adjusted_loss, source="Menon et al. 2021"),
    # The published name of the same with tau = 1, which is the default of both.
    "balanced_softmax": Method(logit_adjusted_loss, source="Ren et al. 2020"),
    "vs": Method(vector_scaling, source="Kini et al. 2021; Wang et al. 2023"),
    "cdt": Method(class_dependent_temperatures, source="Ye et al. 2020; Zhang et al. 2021"),
    # The two follow "vs" in a later phase: class weights, and "vs" without its temperatures.
    "adrw": Method(adrw, phase=DEFERRED, source="Wang et al. 2023"),
    "tla": Method(logit_adjusted_loss, phase=DEFERRED, replaces=("vs",), source="Wang et al. 2023"),
    "seql": softmax_equalisation,
    "lade": lade,
    "tde": Method(total_direct_effect, model={"head": "causal"}),
    "label_smoothing": label_smoothing,
    "label_aware_smoothing": Method(label_aware_smoothing, source="Zhong et al. 2021"),
    "joint_ssl": Method(joint_ssl, model={"projector": "vicreg"}),
    "simclr": Method(simclr, model={"projector": "simclr"}),
    "glmc": Method(glmc, model={"projector": "glmc"}),
}


def arguments_of(method: Apply | Method) -> dict[str, signatures.Argument]:
    """The arguments of an entry of `METHODS` by name; see `arguments.arguments_of`."""
    return signatures.arguments_of(as_method(method).apply)


def frozen_networks() -> dict[str, dict[str, str]]:
    """Networks of other runs: name -> method that uses it -> usual method of that run."""
    found: dict[str, dict[str, str]] = {}
    for method, entry in METHODS.items():
        for name, usual in as_method(entry).frozen.items():
            found.setdefault(name, {})[method] = usual
    return found


def check_arguments(name: str, arguments: Mapping[str, Any], batch_size: int) -> None:
    """Checks that the arguments of a method fit together.

    Args:
        name: a key of `METHODS`.
        arguments: all arguments of the method, by name.
        batch_size: rows per step.

    Raises:
        ConfigError: they do not; the message names them.
    """
    check = as_method(METHODS[name]).check
    if check is not None:
        check(arguments, batch_size)


def build_recipe(
    names: Sequence[str], stats: DataStats, arguments: Mapping[str, Mapping[str, Any]]
) -> Recipe:
    """Applies methods one after the other to the default recipe.

    Args:
        names: keys of `METHODS`, in the order in which the methods are applied.
        stats: statistics of the training set.
        arguments: by method name; a method without an entry uses its defaults.

    Raises:
        ConfigError: a method or an argument is unknown, an argument is out of range, or two methods
            set the same field of the recipe.
    """
    recipe, setters = Recipe(), dict[str, str]()
    for name in names:
        if name not in METHODS:
            raise unknown("phases.*.methods", name, METHODS)
        given, legal = arguments.get(name, {}), arguments_of(METHODS[name])
        unexpected = sorted(set(given) - set(legal))
        if unexpected:
            raise ConfigError(
                f"method.{name}.{unexpected[0]} is unknown; legal: {', '.join(legal) or 'none'}"
            )
        method = as_method(METHODS[name])
        before, recipe = recipe, method.apply(recipe, stats, **given)
        for need, value in method.model.items():
            if recipe.requires.get(need, value) != value:
                raise ConfigError(
                    f"{name} needs model.{need}={value}, but a method before it in the same phase "
                    f"needs model.{need}={recipe.requires[need]}; use only one of them"
                )
        if method.model:
            recipe = dataclasses.replace(recipe, requires={**recipe.requires, **method.model})
        added = tuple(name for name in method.frozen if name not in recipe.frozen)
        recipe = dataclasses.replace(recipe, frozen=(*recipe.frozen, *added))
        for field in dataclasses.fields(Recipe):
            old, new = getattr(before, field.name), getattr(recipe, field.name)
            if _extends(new, old):
                continue
            if field.name in setters:
                raise ConfigError(
                    f"methods {setters[field.name]} and {name} both set {field.name} of a step, so "
                    "the second would overwrite the first; use only one of them"
                )
            setters[field.name] = name
    return recipe


def _extends(new: Any, old: Any) -> bool:
    """Returns whether a field keeps its old value: unchanged, or with entries added to it."""
    if isinstance(old, tuple):
        return bool(new[: len(old)] == old)
    if isinstance(old, Mapping):
        return all(name in new and new[name] is value for name, value in old.items())
    if isinstance(old, np.ndarray):
        return isinstance(new, np.ndarray) and np.array_equal(new, old)
    return new is old


__all__ = [
    "METHODS",
    "Method",
    "UsualPhase",
    "arguments_of",
    "as_method",
    "build_recipe",
    "check_arguments",
    "frozen_networks",
]
