"""Overhead of an epoch, an evaluation and a start."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.jax_steps import AUGMENTATIONS
from benchmarks.timing import Program
from purenoise_jax.config.fields import default_config
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.pixels import normalize, to_float
from purenoise_jax.methods.recipe import current_variables, identity
from purenoise_jax.models import create_model
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.evaluation import Evaluator
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.train_step import TrainState

IMAGE = (32, 32, 3)
# Images of CIFAR-10-LT at ratio 100, and so of an epoch.
EPOCH_IMAGES = 12_406


def write_data(path: Path, images: int, test_images: int, size: int = 32) -> None:
    """Writes random images."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", images), ("test", test_images)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 10
    np.savez(path, **arrays)


def run_config(path: Path, model: str, epochs: int) -> ConfigDict:
    """Config of OPeN from the first epoch, augmented, evaluated at the end."""
    config = default_config()
    config.data.update({"source": "npz", "path": str(path), "augment": AUGMENTATIONS})
    config.data.imbalance_ratio = 1.0
    config.model.name = model
    config.num_epochs = epochs
    config.steps_per_call = 1
    config.eval.every_epochs = 0
    config.checkpoint.every_epochs = 0
    config.optimizer.learning_rate = 0.01
    config.optimizer.warmup_epochs, config.optimizer.milestones = 0, ()
    config.phases.initial.methods = ("open",)
    return config


class Stopwatch(Display):
    """Records the time at which the loop has dispatched each step."""

    def __init__(self) -> None:
        super().__init__(active=False)
        self.times: list[float] = []

    def advance(self, done: int, images_per_second: float | None) -> None:
        """Records the time; the loop calls it after each call of steps."""
        del done, images_per_second
        self.times.append(time.perf_counter())


def between_epochs(
    epochs: int, images: int = EPOCH_IMAGES, model: str = "resnet8"
) -> dict[str, Any]:
    """Milliseconds of the work once per epoch: sampling, metrics, logging.

    Measured as the time from the last step of one epoch to the first of the next minus that between
    two steps, with the smallest network on small images, so that a step is short in comparison.

    Args:
        epochs: at least three, because the first compiles.
        images: number of training images.
        model: network.
    """
    if epochs < 3:
        raise ValueError(f"--epochs={epochs} must be at least 3")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        write_data(data, images, 10, size=8)
        config = run_config(data, model, epochs)
        config.data.augment = ("flip",)
        watch = Stopwatch()
        train_and_evaluate(config, Path(folder) / "run", watch)
    per_epoch = len(watch.times) // epochs
    gaps = np.diff(watch.times) * 1000
    at_border = np.arange(1, len(watch.times)) % per_epoch == 0
    # The first epoch compiles.
    late = np.arange(len(gaps)) >= per_epoch
    step = float(np.median(gaps[late & ~at_border]))
    borders = gaps[late & at_border] - step
    return {
        "ms": float(np.median(borders)),
        "ms_low": float(np.percentile(borders, 25)),
        "ms_high": float(np.percentile(borders, 75)),
        "rounds": len(borders),
        "images": images,
    }


def evaluation(model: str, count: int, batch_size: int = 512) -> dict[str, Program]:
    """Programs for an evaluation of `count` images and for the bare forward passes over as many."""
    network = create_model(model, num_classes=10, norm="dar_bn")
    placement = Placement(batch_size, 1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *IMAGE), np.uint8)
    labels = (np.arange(count) % 10).astype(np.int32)
    half = np.full(3, 0.5, np.float32)
    batch_builder = BatchBuilder(None, half, half, 10)
    variables = jax.jit(
        lambda: network.init(jax.random.key(0), np.zeros((1, *IMAGE), np.float32), train=False)
    )()
    state = TrainState(
        step=jnp.int32(0),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=(),
    )
    evaluator = Evaluator(
        network,
        images,
        labels,
        batch_builder=batch_builder,
        placement=placement,
        batch_size=batch_size,
    )
    passes = -(-count // batch_size)
    size = count // passes
    batch = jax.device_put(normalize(to_float(jnp.asarray(images[:size])), half, half))
    forward: Callable[..., Any] = jax.jit(
        lambda variables, x: network.apply(variables, x, train=False)[0],
        compiler_options=compiler_options(),
    )

    def bare() -> None:
        for _ in range(passes):
            logits = forward(variables, batch)
        logits.block_until_ready()

    def evaluate() -> None:
        evaluator(current_variables(state), identity)

    facts = {"images": count, "batch_size": size}
    return {
        f"evaluation, {model}": Program(evaluate, 1, facts),
        f"bare forward, {model}": Program(bare, 1, facts),
    }


CHILD = """
import sys, time
started = float(sys.argv[1])
import jax
from pathlib import Path
from benchmarks.overhead import Stopwatch, run_config
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.training.loop import train_and_evaluate
compilation_cache.enable()
imported = time.time()

class Done(BaseException):
    pass

class First(Stopwatch):
    def advance(self, done, images_per_second):
        if done == 2:  # dispatched once step 1 is done
            print(imported - started, time.time() - started)
            raise Done

try:
    train_and_evaluate(run_config(Path(sys.argv[2]), sys.argv[3], 1), sys.argv[4], First())
except Done:
    pass
"""


def start(model: str) -> list[dict[str, Any]]:
    """Seconds from the start of Python to the end of the first step, by state of the cache."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        write_data(data, 4096, 10)
        env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
        env |= {"XDG_CACHE_HOME": folder, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        for cache in ("empty", "full", "full"):
            workdir = Path(folder) / f"run{len(rows)}"
            argv = [sys.executable, "-c", CHILD, str(time.time()), str(data), model, str(workdir)]
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=600)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1])
            imported, first = map(float, done.stdout.split()[-2:])
            row = {"name": f"start, {model}, cache {cache}", "import_seconds": imported}
            rows.append({**row, "first_step_seconds": first})
    return rows


def to_json(value: Any) -> str:
    """Formats a value as one line of JSON."""
    return json.dumps(value, allow_nan=False)
