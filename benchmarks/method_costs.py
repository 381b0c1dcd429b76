"""The training step of every method, ready to be timed beside plain training's."""

import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.timing import Program
from configs import cifar10_lt
from purenoise_jax.config.usual_phases import lay_out
from purenoise_jax.methods import METHODS, as_method
from purenoise_jax.runtime.console import Display
from purenoise_jax.training import compile_steps
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.train_step import Rows

CLASSES, STEPS = 10, 8
# Enough for every method to have a phase of its own.
EPOCHS = 10


def write_images(path: Path, batch_size: int, size: int = 32) -> Path:
    """Writes random images of a long tail, enough for a few steps."""
    rng = np.random.default_rng(0)
    count = STEPS * batch_size
    shares = 0.01 ** (np.arange(CLASSES) / (CLASSES - 1))
    labels = rng.choice(CLASSES, count, p=shares / shares.sum())
    # Every class has two images at least.
    labels[: 2 * CLASSES] = np.arange(2 * CLASSES) % CLASSES
    arrays: dict[str, Any] = {}
    for split, of in (("train", labels), ("test", np.arange(CLASSES))):
        arrays[f"{split}_images"] = rng.integers(0, 256, (len(of), size, size, 3), np.uint8)
        arrays[f"{split}_labels"] = of
    np.savez(path, **arrays)
    return path


def method_config(
    method: str, images: Path, model: str, batch_size: int, network: str = ""
) -> ConfigDict:
    """The config of CIFAR-10-LT with a method, on images from `write_images`.

    Args:
        method: a key of `METHODS`.
        images: from `write_images`.
        model: network.
        batch_size: rows of a step.
        network: workdir of the run whose network a method uses beside its own.
    """
    config = cifar10_lt.get_config(f"method=erm,model={model},augment=flip_crop")
    # A method that ends another one begins from it.
    lay_out(config, (*as_method(METHODS[method]).replaces, method), EPOCHS)
    config.data.update({"source": "npz", "path": str(images), "profile": "natural"})
    config.batch_size, config.num_devices = batch_size, 1
    for name in as_method(METHODS[method]).frozen:
        config.frozen[name] = network
    # With small batches no class is below the default, and without a rare class this method is
    # refused.
    config.method.seql.threshold = 1.0
    return config


def train_network(images: Path, model: str, batch_size: int, workdir: Path) -> str:
    """Trains a network for one epoch, for methods that use one beside their own."""
    config = method_config("erm", images, model, batch_size)
    lay_out(config, ("erm",), 1)
    config.report = False
    train_and_evaluate(config, workdir, Display(active=False))
    return str(workdir)


def method_program(config: ConfigDict, method: str, steps_per_call: int = 1) -> Program:
    """Compiles the step of the last phase in which a method trains.

    Args:
        config: from `method_config`.
        method: a key of `METHODS`.
        steps_per_call: steps per call; more than one are looped on the device.
    """
    experiment = build(config)
    listed = as_method(METHODS[method]).listed_as or method
    phase = [phase for phase in experiment.phases if listed in phase.methods][-1]
    placement, looped = experiment.placement, steps_per_call > 1
    index, valid = experiment.sampler.epoch(phase.start, phase.recipe.class_probs)
    rows = Rows(placement.split_rows(index), placement.split_rows(valid))
    totals = jax.tree.map(placement.replicate, EpochMetrics.zero(len(index)))
    inputs = jax.tree.map(placement.replicate, experiment.inputs())
    state = experiment.init()
    program = compile_steps.step_program(experiment.step_fn(phase), placement, looped=looped)
    numbers = [jax.ShapeDtypeStruct((), np.int32)] * (2 if looped else 1)
    compiled = program.lower(state, totals, inputs, rows, *numbers).compile()
    box = [state, totals]
    places = itertools.cycle(range(len(index)))

    def run() -> None:
        span = (np.int32(0), np.int32(steps_per_call)) if looped else (np.int32(next(places)),)
        box[:] = compiled(*box, inputs, rows, *span)
        jax.block_until_ready(box)

    facts = {"batch_size": config.batch_size, "phase": "+".join(phase.methods)}
    return Program(run, steps_per_call, facts)
