"""Noise images and training batches of a run, for the figures that compare noise with images."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import Run
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.noise_source import NoiseSource, noise_source
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.errors import ConfigError


class NoiseMethods(NamedTuple):
    """A run's method with noise, and the two recipes that a figure compares.

    Attributes:
        name: name of the method with noise.
        without, with_noise: methods of the two recipes; both draw classes alike.
    """

    name: str
    without: tuple[str, ...]
    with_noise: tuple[str, ...]


def noise_methods(run: Run) -> NoiseMethods:
    """Returns the run's method with noise; for a run without one, OPeN with the run's fields."""
    used = {method for phase in run.config.phases.values() for method in phase.methods}
    if "append" in used:
        return NoiseMethods("append", ("erm",), ("append",))
    return NoiseMethods("open", ("rs",), ("open",))


def run_noise(run: Run) -> NoiseSource:
    """Builds the noise source of a run from the fields of its method with noise.

    Raises:
        ConfigError: the run adds noise to images, so it has no images of pure noise.
    """
    method = noise_methods(run).name
    fields = run.config.method[method]
    if fields.get("additive_std"):
        raise ConfigError(
            f"{run.path}: method.{method}.additive_std={fields.additive_std}, so this run adds "
            "noise to images and has no images of pure noise"
        )
    names = ("space", "noise_stats", "mean", "std", "clip")
    arguments = {name: fields[name] for name in names}
    return noise_source(run.experiment.training.stats, method, **arguments)


def noise_inputs(network: Network, count: int, seed: int) -> np.ndarray:
    """Draws noise images as they enter a network, f32[count, H, W, C].

    The fields of the run's method with noise determine them. A run without noise has such fields
    too: it gets OPeN's noise, by default with the mean and deviation of the training subset.

    Args:
        network: network of the run.
        count: number of images.
        seed: the same seed gives the same noise.
    """
    shape = (count, *network.experiment.training.stats.image_shape)
    noise = run_noise(network.run).draw(rng.root(seed), shape)
    return np.asarray(network.experiment.batch_builder.normalize(noise))


def noisy_batches(run: Run, count: int, seed: int) -> list[Batch]:
    """Draws batches as the run's method with noise does; see `training_batches`.

    Raises:
        ConfigError: no batch has a noise row, for example because OPeN meets balanced data.
    """
    methods = noise_methods(run)
    batches = training_batches(run, methods.with_noise, count, seed)
    if not any(bool((batch["noise_mask"] & batch["valid"]).any()) for batch in batches):
        raise ConfigError(
            f"{run.path}: {methods.name} puts no noise into {count} batches of this run's data, "
            "so there is nothing to compare"
        )
    return batches


def training_batches(run: Run, methods: Sequence[str], count: int, seed: int) -> list[Batch]:
    """Draws batches as a phase with these methods does, with augmentation.

    With the same seed, two lists of methods that draw classes alike get the same images with the
    same augmentation; "open" then only replaces some of them by noise.

    Args:
        run: source of data, augmentation, batch size and `method` arguments.
        methods: keys of `METHODS`, such as ("rs",) or ("open",).
        count: number of batches.
        seed: seed of the draws, in place of the run's.

    Returns:
        Batches as in `data.batch`, always with a noise mask.
    """
    return [batch for _, batch in draw_batches(run, methods, count, seed)]


def draw_batches(
    run: Run, methods: Sequence[str], count: int, seed: int
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Draws batches one after the other; see `training_batches`.

    Yields:
        The indices i32[B] of the training images of a batch, and the batch. It may have more rows
        than B, which a method has appended.
    """
    experiment = run.experiment
    training = experiment.training
    recipe = build_recipe(methods, training.stats, run.config.method.to_dict())
    batch_builder = experiment.batch_builder.augmenting(recipe.augments)
    sampler = EpochSampler(
        training.labels, training.stats.num_classes, experiment.sampler.batch_size, seed
    )

    def make(step: jax.Array, image: jax.Array, label: jax.Array, valid: jax.Array) -> Batch:
        augment_key, transform_key = (
            rng.at(rng.stream(seed, name), step) for name in ("augment", "transforms")
        )
        rows = jnp.arange(len(image))
        batch = batch_builder.make_batch(augment_key, image, label, rows, valid)
        for i, transform in enumerate(recipe.transforms):
            batch = transform(rng.at(transform_key, i), batch)
        return {"noise_mask": jnp.zeros_like(valid), **batch}

    make = jax.jit(make, compiler_options=compiler_options())
    epochs = -(-count // sampler.steps)
    drawn = [sampler.epoch(epoch, recipe.class_probs) for epoch in range(epochs)]
    index, valid = (np.concatenate(part)[:count] for part in zip(*drawn, strict=True))
    for i in range(count):
        images, labels = training.images[index[i]], training.labels[index[i]]
        yield index[i], make(np.int32(i), images, labels, valid[i])
