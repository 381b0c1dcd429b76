"""Reads a trained network from the files of its run alone; the training data may be gone.

The config and the record of a checkpoint hold all that evaluation depends on: the network, the
image size, the statistics that normalise its input, and the names and sizes of the classes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.config.phase_fields import phase_values
from purenoise_jax.data.pixels import normalize, to_float
from purenoise_jax.data.sources.lists import NO_LISTS, Lists
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.data.view import View
from purenoise_jax.inference.runs import Run
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.recipe import Postprocess, Recipe
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.runtime.paths import expand
from purenoise_jax.training.build import make_model
from purenoise_jax.training.train_step import TrainState, init_state

# In place of a number of epochs: those of the best evaluation on validation images.
BEST_EPOCH = "best"
# Entries of a checkpoint's record that are used here.
NEEDED = (
    *("steps_per_epoch", "epoch", "num_classes", "class_counts", "image_shape"),
    *("normalize_mean", "normalize_std"),
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network after training, and all that its use depends on.

    Attributes:
        run: from which it was read.
        epoch: completed epochs.
        step: completed steps.
        model: from `create_model`.
        variables: "params", "batch_stats" and others that evaluation uses, on the host.
        phases: first epoch, counted from 0, and names of the methods of each phase so far.
        recipe: of the last of them.
        class_names: K names in label order.
        class_counts: int64[K], training images per class.
        image_shape: (H, W, C) of the network's input.
        mean, std: f32[C], that normalise the input, of pixels in [0, 1].
        record: of the checkpoint.
    """

    run: Run
    epoch: float
    step: int
    model: Any
    variables: Mapping[str, Any]
    phases: tuple[tuple[int, tuple[str, ...]], ...]
    recipe: Recipe
    class_names: tuple[str, ...]
    class_counts: np.ndarray
    image_shape: tuple[int, int, int]
    mean: np.ndarray
    std: np.ndarray
    record: Mapping[str, Any]

    @property
    def postprocess(self) -> Postprocess:
        """The logits of evaluation as a function of the network's; see `recipe.Postprocess`."""
        return self.recipe.postprocess

    @property
    def matmul_precision(self) -> str:
        """The precision of products and convolutions, of `numerics.MATMUL_PRECISIONS`."""
        return str(self.run.config.matmul_precision)

    @property
    def view(self) -> View:
        """The way in which the run evaluates images, but for their size."""
        data = self.run.config.data
        return View(shorter=data.resize_shorter, how=data.resize)

    @property
    def lists(self) -> Lists:
        """The names of the columns, and more, of the lists that the run was trained with."""
        data = self.run.config.data
        return Lists(**{name: data[name] for name in dataclasses.asdict(NO_LISTS)})

    @property
    def lists_root(self) -> Path | None:
        """The folder of the images of these lists; None = the run was trained without lists."""
        data = self.run.config.data
        return expand(data.path, "data.path") if data.source == "list" else None

    @property
    def where(self) -> str:
        """Names the run and the epoch in messages."""
        return f"{self.run.path}, epoch {self.epoch:g}"

    def forward(self, variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes the network in evaluation mode.

        Args:
            variables: those of the attribute.
            images: uint8[B, H, W, C].

        Returns:
            The network's own logits f32[B, K], and its features f32[B, F].
        """
        inputs = normalize(to_float(images), self.mean, self.std)
        logits, outputs = self.model.apply(variables, inputs, train=False)
        return logits, outputs["features"]


def load_trained(run: Run, epoch: int | str | None = None) -> Trained:
    """Reads the network of a checkpoint, without reading the data that it was trained on.

    Args:
        run: from `load_runs`.
        epoch: completed epochs; "best", by `checkpoint.best`; None = the newest checkpoint.

    Raises:
        CheckpointError: there is no such checkpoint, or it was written by an earlier version and
            does not have the names of the classes.
        ConfigError: the config does not fit the classes.
    """
    checkpoints = Checkpoints(run.path)
    try:
        step = _step(run, checkpoints, epoch)
        record = checkpoints.record(step)
        names = _class_names(run, record)
        shape: Any = tuple(record["image_shape"])
        mean, std = (
            np.asarray(record[f"normalize_{name}"], np.float32) for name in ("mean", "std")
        )
        counts = np.asarray(record["class_counts"], np.int64)
        # Moments of pixels are for noise images, which training makes and evaluation does not.
        stats = DataStats(counts, shape, mean, std, mean, std, mean, std)
        phases = _phases(run, stats)
        model = make_model(run.config, len(counts))
        memory = {n: m.init for _, _, recipe in phases for n, m in recipe.memory.items()}
        state = _restored(checkpoints, step, model, shape, memory)
    finally:
        checkpoints.close()
    last = max(step // record["steps_per_epoch"] - 1, 0)
    begun = [phase for phase in phases if phase[0] <= last]
    recipe = begun[-1][2]
    return Trained(
        run=run,
        epoch=record["epoch"],
        step=step,
        model=model,
        variables=jax.device_get(recipe.evaluated(state)),
        phases=tuple((start, methods) for start, methods, _ in begun),
        recipe=recipe,
        class_names=names,
        class_counts=counts,
        image_shape=shape,
        mean=mean,
        std=std,
        record=record,
    )


def _step(run: Run, checkpoints: Checkpoints, epoch: int | str | None) -> int:
    newest = run.newest_step(checkpoints)
    if newest is None:
        raise CheckpointError(f"{run.path} has no checkpoint")
    record = checkpoints.record(newest)
    missing = [name for name in NEEDED if name not in record]
    if missing:
        raise CheckpointError(
            f"{run.path}: the record of its checkpoint lacks {', '.join(missing)}, so another "
            "version of purenoise_jax must have written it; use it with that version"
        )
    if epoch is None:
        return newest
    if isinstance(epoch, str):
        return _best_step(run, checkpoints, record, epoch)
    step = epoch * int(record["steps_per_epoch"])
    if step not in checkpoints.steps():
        there = (f"{each / record['steps_per_epoch']:g}" for each in checkpoints.steps())
        raise CheckpointError(
            f"{run.path} has no checkpoint after epoch {epoch}; legal: {', '.join(there)}"
        )
    return step


def _best_step(run: Run, checkpoints: Checkpoints, record: Mapping[str, Any], name: str) -> int:
    """The step of the best checkpoint, which the newest one names."""
    if name != BEST_EPOCH:
        raise ConfigError(f"epoch={name} is not legal; legal: a number of epochs, or {BEST_EPOCH}")
    best = record.get("best")
    if not best:
        raise CheckpointError(
            f"{run.path} records no best checkpoint: checkpoint.best is none, it has no validation "
            "images, or was not evaluated yet; legal: a number of epochs"
        )
    step = int(best["step"])
    if step not in checkpoints.steps():
        raise CheckpointError(
            f"{run.path}: the checkpoint of the best {best['metric']}, after epoch "
            f"{best['epoch']}, is gone; legal: another epoch"
        )
    return step


def _class_names(run: Run, record: Mapping[str, Any]) -> tuple[str, ...]:
    # Until checkpoints had them, only the summary of a finished run did.
    names = record.get("class_names") or (run.summary or {}).get("class_names")
    if not names or len(names) != record["num_classes"]:
        raise CheckpointError(
            f"{run.path}: an earlier version wrote its checkpoint, which lacks the names of the "
            "classes; continue the run until its next checkpoint or its end"
        )
    return tuple(map(str, names))


def _phases(run: Run, stats: DataStats) -> list[tuple[int, tuple[str, ...], Recipe]]:
    """The start, the methods and the recipe of every phase, in the order of their starts."""
    arguments = run.config.method.to_dict()
    fields = sorted(map(phase_values, run.config.phases.values()), key=lambda p: p["start_epoch"])
    return [
        (p["start_epoch"], tuple(p["methods"]), build_recipe(p["methods"], stats, arguments))
        for p in fields
    ]


def _restored(
    checkpoints: Checkpoints,
    step: int,
    model: Any,
    image_shape: tuple[int, int, int],
    memory: Mapping[str, Callable[[Any], Any]],
) -> TrainState:
    """A state without that of the optimiser, on one device."""
    shapes = jax.eval_shape(lambda: init_state(model, optax.identity(), image_shape, 0, memory))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
        {"params": shapes.params, "batch_stats": shapes.batch_stats, "extra": shapes.extra},
    )
    # Collections without arrays are not in a checkpoint.
    wanted = {name: tree for name, tree in target.items() if jax.tree.leaves(tree)}
    found = checkpoints.restore_collections(step, wanted)
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=found["params"],
        batch_stats=found.get("batch_stats", {}),
        opt_state=(),
        extra=found.get("extra", {}),
    )
