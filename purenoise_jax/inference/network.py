"""The network of a run as functions of images."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import Batch
from purenoise_jax.data.host_images import Images
from purenoise_jax.data.pixels import to_float
from purenoise_jax.data.sampling import pad_rows
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.numerics import with_precision
from purenoise_jax.training.train_step import TrainState

BATCH_SIZE = 250


class Outputs(NamedTuple):
    """Features and logits of N images.

    Attributes:
        features: f32[N, F], pooled activations before the last linear layer.
        logits: f32[N, K]; those of `Network.evaluate` are after the recipe's `postprocess`.
    """

    features: np.ndarray
    logits: np.ndarray


class Network:
    """A run's network with the state of one checkpoint.

    Args:
        run: the run that the network belongs to.
        epoch: completed epochs of the checkpoint; None = the newest checkpoint.

    Raises:
        CheckpointError: there is no such checkpoint.
        DataError: the run's data are missing.
    """

    def __init__(self, run: Run, epoch: int | None = None) -> None:
        self.run = run
        self.experiment = run.experiment
        self.state: TrainState = run.state(epoch)
        completed = int(self.state.step) // self.experiment.steps_per_epoch
        recipe = self.experiment.phase_of(max(completed - 1, 0)).recipe
        self.postprocess, self._evaluated = recipe.postprocess, recipe.evaluated
        model, batch_builder = self.experiment.model, self.experiment.batch_builder

        def evaluate(variables: Any, inputs: jax.Array, valid: jax.Array) -> Any:
            logits, extra = model.apply(variables, inputs, None, valid, train=False)
            return extra["features"], self.postprocess(logits)

        def train(variables: Any, batch: Batch, key: jax.Array) -> Any:
            (logits, extra), _ = model.apply(
                variables,
                batch_builder.normalize(batch["image"]),
                batch["noise_mask"],
                batch["valid"],
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            return extra["features"], logits

        precision = self.experiment.matmul_precision
        self._evaluate = jax.jit(
            with_precision(evaluate, precision), compiler_options=compiler_options()
        )
        self._train = jax.jit(train, compiler_options=compiler_options())

    @property
    def variables(self) -> dict[str, Any]:
        """The parameters and running statistics that evaluation uses."""
        return self._evaluated(self.state)

    def evaluate(self, inputs: np.ndarray) -> Outputs:
        """Returns features and logits in evaluation mode: running statistics, no dropout.

        Noise images, too, are normalised by the running statistics of natural images, because a
        network in use does not know which of its inputs are noise. The histograms of the published
        reproduction do the same.

        Args:
            inputs: f32[N, H, W, C], as they enter the network; N may be 0.
        """
        index, valid = pad_rows(np.arange(len(inputs), dtype=np.int32), BATCH_SIZE)
        model, classes = self.experiment.model, self.experiment.training.stats.num_classes
        if not len(index):
            shape = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), jnp.float32)
            empty = jax.eval_shape(
                lambda v, x: model.apply(v, x, train=False), self.variables, shape
            )[1]["features"]
            return Outputs(
                np.zeros((0, empty.shape[1]), np.float32), np.zeros((0, classes), np.float32)
            )
        parts = [
            [np.asarray(part)[mask] for part in self._evaluate(self.variables, inputs[rows], mask)]
            for rows, mask in zip(index, valid, strict=True)
        ]
        return Outputs(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def features(self, images: Images) -> np.ndarray:
        """Returns the features of images uint8[N, H, W, C] in evaluation mode, f32[N, F].

        Images outside memory are read a batch at a time.
        """
        parts = [
            self.evaluate(self.images(images[first : first + BATCH_SIZE])).features
            for first in range(0, max(len(images), 1), BATCH_SIZE)
        ]
        return np.concatenate(parts)

    def train(self, batch: Batch, seed: int) -> Outputs:
        """Returns features and logits in training mode: moments of the batch, and dropout.

        Args:
            batch: from `training_batches`.
            seed: seed of dropout.
        """
        outputs = self._train(self.variables, batch, rng.root(seed))
        return Outputs(*map(np.asarray, outputs))

    def images(self, images: np.ndarray) -> np.ndarray:
        """Normalises images uint8[N, H, W, C] to inputs of the network, f32[N, H, W, C]."""
        batch_builder = self.experiment.batch_builder
        return np.asarray(batch_builder.normalize(to_float(jnp.asarray(images))))
