"""Images a second of the feeds, and the share of an epoch that they cost."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.image_trees import write_tree
from benchmarks.timing import Program, spread
from purenoise_jax.data import original_crop
from purenoise_jax.data.feed import StreamingFeed
from purenoise_jax.data.host_images import Images
from purenoise_jax.data.mapped_images import MappedImages
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.runtime.sharding import Placement

SIDE = 224
# As a GPU of 80 GB trains ResNeXt-50 in bfloat16, by its data sheet.
MAPPED_RATE = 1_500
BUSY = 0.6


@contextlib.contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Keeps what is cached in a folder for as long as this lasts."""
    before = os.environ.get("PURENOISE_JAX_CACHE")
    os.environ["PURENOISE_JAX_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["PURENOISE_JAX_CACHE"]
        if before is not None:
            os.environ["PURENOISE_JAX_CACHE"] = before


def decoded_images(root: Path) -> Images:
    """Random crops of the training images of a tree, from their files."""
    options: dict[str, Any] = {"name": "", "path": str(root), "image_size": SIDE}
    options |= {"train_split": "", "test_split": ""}
    return load_for("decoded", "folder", crop=original_crop.NAME, **options).train_images


def mapped_images(path: Path, count: int) -> MappedImages:
    """Random pixels in a file."""
    rng = np.random.default_rng(0)
    shape = (count, SIDE, SIDE, 3)
    with path.open("wb") as file:
        for _ in range(count):
            file.write(rng.bytes(SIDE * SIDE * 3))
    return MappedImages(path, shape)


def order_of(count: int, batch_size: int, steps: int) -> np.ndarray:
    """Images of a few steps, i32[steps, B]."""
    rng = np.random.default_rng(1)
    return rng.integers(0, count, (steps, batch_size)).astype(np.int32)


def reading(images: Any, index: np.ndarray, workers: int) -> Program:
    """Reads the batches of some steps, and places them on the device."""
    steps, batch_size = index.shape
    labels = np.zeros(len(images), np.int32)
    feed = StreamingFeed(images, labels, Placement(batch_size, 1), workers)

    def run() -> None:
        rows = feed.epoch(index, np.ones(index.shape, bool))
        for row in range(steps):
            rows.take(row).images.block_until_ready()

    return Program(run, steps, {"batch_size": batch_size, "workers": workers})


def torch_reading(paths: list[Path], index: np.ndarray, workers: int) -> Program:
    """Reads the same batches by a DataLoader, whose processes stay."""
    from benchmarks.torch_loader import loader

    steps, batch_size = index.shape
    batches = loader(paths, SIDE, index.reshape(-1).tolist(), batch_size, workers)

    def run() -> None:
        assert sum(len(batch) for batch in batches) == index.size

    return Program(run, steps, {"batch_size": batch_size, "workers": workers})


def share_of_epoch(
    images: Any, index: np.ndarray, workers: int, step_seconds: float, rounds: int
) -> dict[str, Any]:
    """The time that a feed adds to an epoch whose steps take as long as given.

    The step is simulated by waiting, as for a GPU. The first batch is not counted, because an epoch
    has many.

    Returns:
        "share", the median of the time on top of the steps, over theirs, and its spread.
    """
    steps, batch_size = index.shape
    labels = np.zeros(len(images), np.int32)
    feed = StreamingFeed(images, labels, Placement(batch_size, 1), workers)
    shares = []
    for _ in range(rounds):
        rows = feed.epoch(index, np.ones(index.shape, bool))
        rows.wait(0)
        started = time.perf_counter()
        for row in range(steps):
            rows.take(row).images.block_until_ready()
            time.sleep(step_seconds)
        shares.append((time.perf_counter() - started) / (steps * step_seconds) - 1)
    return {
        "share": float(np.median(shares)),
        "share_low": min(shares),
        "share_high": max(shares),
        "step_ms": 1000 * step_seconds,
        "rounds": rounds,
        "workers": workers,
        "batch_size": batch_size,
    }


def balanced_epoch(images: int, classes: int, rounds: int, batch_size: int = 256) -> dict[str, Any]:
    """Milliseconds to draw an epoch with balanced classes."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, classes + 1)
    labels = rng.choice(classes, images, p=shares / shares.sum()).astype(np.int32)
    labels[:classes] = np.arange(classes)
    sampler = EpochSampler(labels, classes, batch_size, 0)
    probs = np.full(classes, 1 / classes, np.float32)
    sampler.epoch(0, probs)
    taken = []
    for epoch in range(rounds):
        started = time.perf_counter()
        sampler.epoch(epoch, probs)
        taken.append(time.perf_counter() - started)
    return {"images": images, "classes": classes, **spread(taken)}


CHILD = """
import sys, time
started = float(sys.argv[1])
from pathlib import Path
from benchmarks.overhead import Stopwatch, run_config
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.training.loop import train_and_evaluate
compilation_cache.enable()

class Done(BaseException):
    pass

class First(Stopwatch):
    def advance(self, done, images_per_second):
        if done == 2:  # dispatched once step 1 is done
            print(time.time() - started)
            raise Done

config = run_config(Path(sys.argv[2]), "resnet8", 1)
config.data.update({"source": "folder", "feed": "decoded", "image_size": 32, "profile": "natural"})
try:
    train_and_evaluate(config, sys.argv[3], First())
except Done:
    pass
"""


def first_steps(images: int, classes: int, sides: tuple[int, int]) -> list[dict[str, Any]]:
    """Seconds from the start of Python to the end of the first step on a tree of JPEGs.

    The first start makes the manifest and measures the channels; the second finds both.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder) / "tree", images, classes, sides)
        env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
        env |= {"XDG_CACHE_HOME": folder, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        for which in ("first", "second"):
            workdir = Path(folder) / which
            argv = [sys.executable, "-c", CHILD, str(time.time()), f"{folder}/tree", str(workdir)]
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=1800)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1])
            seconds = float(done.stdout.split()[-1])
            row = {"name": f"{which} start", "images": images, "classes": classes}
            rows.append({**row, "first_step_seconds": seconds})
    return rows
