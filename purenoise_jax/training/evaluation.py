"""Exact evaluation of a data set in batches of fixed shape: every image counts once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.feed import StreamingFeed
from purenoise_jax.data.host_images import HostImages, Images
from purenoise_jax.data.pixels import to_float
from purenoise_jax.data.rows import StreamedRows
from purenoise_jax.data.sampling import pad_rows
from purenoise_jax.methods.recipe import Postprocess
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.numerics import with_precision
from purenoise_jax.runtime.sharding import Placement
from purenoise_jax.training.metrics import TOP

ECE_BINS = 15


class Sums(NamedTuple):
    """Sums over the images so far; none of them grows with the square of the classes.

    Attributes:
        nll: f32[], the sum of negative log-likelihoods, in nats.
        bins: f32[ECE_BINS, 3], per bin of confidence the number of images, the sum of their
            confidences, and the number classified correctly.
        top5: i32[K], the number of images of each class that is among the five with their largest
            logits, see `in_top`.
        hits: i32[P, K], by known class frequencies of the test set the number of images of each
            class that are classified correctly.
    """

    nll: jax.Array
    bins: jax.Array
    top5: jax.Array
    hits: jax.Array


class Counts(NamedTuple):
    """Counts from which all reported numbers are computed.

    Attributes:
        predicted: i32[N], the predicted class of every image, -1 of one that was left out; with the
            labels it gives the confusion matrix, see `confusion.Confusion.of`.
        sums: over the images.
        logits: f32[N, K], after the recipe's `postprocess`; None = they were not asked for.
    """

    predicted: np.ndarray
    sums: Sums
    logits: np.ndarray | None = None


class Rows(NamedTuple):
    """Results of the rows of a batch: i32[B], see `Counts`, and f32[B, K] or None."""

    predicted: Any
    logits: Any


class Evaluator:
    """Evaluates states on one set of images; every image counts once.

    Args:
        model: from `create_model`.
        images: uint8[N, H, W, C]; `HostImages` are read batch by batch in every evaluation. Those
            that are on every device already are not sent there again.
        labels: int32[N] in [0, K).
        batch_builder: how images enter the network; its augmentation is not used.
        placement: over which devices.
        batch_size: the most images of a forward pass, rounded up to a multiple of the devices. The
            images are divided evenly over the least number of passes.
        matmul_precision: one of `numerics.MATMUL_PRECISIONS`.
        class_shares: f64[P, K], frequencies of the classes in test sets where these are known, such
            as `shifted_tests.class_shares`; None = there are none.
        workers: number of threads that read `HostImages`.
        skip: see `data.feed.StreamingFeed`.
        with_logits: the logits of all images can be asked for.
    """

    def __init__(
        self,
        model: Any,
        images: Images | jax.Array,
        labels: np.ndarray,
        *,
        batch_builder: BatchBuilder,
        placement: Placement,
        batch_size: int,
        matmul_precision: str = "default",
        class_shares: np.ndarray | None = None,
        workers: int = 1,
        skip: Callable[[str], None] | None = None,
        with_logits: bool = True,
    ) -> None:
        classes = batch_builder.num_classes
        shares = np.ones((0, classes)) if class_shares is None else class_shares
        log_priors = np.log(shares).astype(np.float32)
        devices = placement.mesh.size
        passes = -(-len(images) // (-(-batch_size // devices) * devices))
        # 10,000 images are 20 passes of 500, not 19 of 512 and one that is half padding.
        batch_size = -(-len(images) // (passes * devices)) * devices
        index, valid = pad_rows(np.arange(len(images), dtype=np.int32), batch_size)
        self.labels = labels
        self._feed: StreamingFeed | None = None
        if isinstance(images, HostImages):
            self._feed = StreamingFeed(images, labels, placement, workers, skip)
            self._rows: Any = (index, valid)
        else:
            there = isinstance(images, jax.Array)
            self._data = (
                images if there else placement.replicate(images),
                placement.replicate(labels),
            )
            self._rows = (placement.split_rows(index), placement.split_rows(valid))
        zero = Sums(
            jnp.zeros((), jnp.float32),
            jnp.zeros((ECE_BINS, 3), jnp.float32),
            jnp.zeros(classes, jnp.int32),
            jnp.zeros(log_priors.shape, jnp.int32),
        )

        def add_rows(
            postprocess: Postprocess, variables: Any, sums: Sums, rows: StreamedRows
        ) -> tuple[Sums, Rows]:
            image = batch_builder.normalize(to_float(rows.images))
            logits, _ = model.apply(variables, image, None, rows.valid, train=False)
            informed = [postprocess(logits, log_prior).argmax(-1) for log_prior in log_priors]
            logits = postprocess(logits)
            sums, predicted = _add(sums, logits, informed, rows.labels, rows.valid)
            return sums, Rows(predicted, logits if with_logits else None)

        def count(
            postprocess: Postprocess,
            variables: Any,
            images: jax.Array,
            labels: jax.Array,
            *rows: jax.Array,
        ) -> tuple[Sums, Rows]:
            def add(sums: Sums, row: tuple[jax.Array, ...]) -> tuple[Sums, Rows]:
                index, valid = (jax.lax.with_sharding_constraint(x, placement.batch) for x in row)
                taken = StreamedRows(images[index], labels[index], valid)
                return add_rows(postprocess, variables, sums, taken)

            return jax.lax.scan(add, zero, rows)

        self._zero, self._placement = zero, placement
        self._add_rows = jax.jit(
            with_precision(add_rows, matmul_precision),
            static_argnums=0,
            out_shardings=placement.replicated,
            compiler_options=compiler_options(),
        )
        self._count = jax.jit(
            with_precision(count, matmul_precision),
            static_argnums=0,
            out_shardings=placement.replicated,
            compiler_options=compiler_options(),
        )

    def __call__(
        self, variables: Mapping[str, Any], postprocess: Postprocess, logits: bool = False
    ) -> Counts:
        """Evaluates a network with its running statistics.

        Args:
            variables: "params" and "batch_stats", see `recipe.current_variables`.
            postprocess: of the recipe that trained it.
            logits: those of all images are wanted as well.

        Returns:
            Counts on the host.
        """
        if self._feed is None:
            sums, rows = self._count(postprocess, variables, *self._data, *self._rows)
            parts = [rows if logits else Rows(rows.predicted, None)]
        else:
            sums, parts = self._streamed(postprocess, variables, logits)
        sums, parts = jax.device_get((sums, parts))
        # The rows are in the order of the images, and padding comes last.
        count = len(self.labels)
        predicted = np.concatenate([np.reshape(part.predicted, -1) for part in parts])[:count]
        if not logits:
            return Counts(predicted, sums)
        shape = (-1, parts[0].logits.shape[-1])
        found = np.concatenate([np.reshape(part.logits, shape) for part in parts])[:count]
        return Counts(predicted, sums, found.astype(np.float32, copy=False))

    def _streamed(
        self, postprocess: Postprocess, variables: Any, logits: bool
    ) -> tuple[Sums, list[Rows]]:
        assert self._feed is not None, "images are on the host"
        index, valid = self._rows
        parts: list[Rows] = []
        sums = jax.tree.map(self._placement.replicate, self._zero)
        ahead = self._feed.epoch(index, valid, step=None)
        for row in range(len(index)):
            sums, found = self._add_rows(postprocess, variables, sums, ahead.take(row))
            parts.append(found if logits else Rows(found.predicted, None))
            # Otherwise the batches of passes that wait for the device would fill the memory.
            before = max(row - 1, 0)
            parts[before] = jax.device_get(parts[before])
        return sums, parts

    def close(self) -> None:
        """Ends reading; see `data.feed.StreamingFeed.close`."""
        if self._feed is not None:
            self._feed.close()


def _add(
    sums: Sums,
    logits: jax.Array,
    informed: Sequence[jax.Array],
    label: jax.Array,
    valid: jax.Array,
) -> tuple[Sums, jax.Array]:
    log_probs = jax.nn.log_softmax(logits)
    nll = -jnp.take_along_axis(log_probs, label[:, None], axis=1)[:, 0]
    predicted = logits.argmax(-1)
    confidence = jnp.exp(log_probs.max(-1))
    weight = valid.astype(jnp.float32)
    per_row = jnp.stack([weight, weight * confidence, weight * (predicted == label)], axis=1)
    none = jnp.zeros(sums.hits.shape[1], jnp.int32)
    right = [(valid & (each == label)).astype(jnp.int32) for each in informed]
    hits = [none.at[label].add(each) for each in right]
    added = Sums(
        sums.nll + jnp.where(valid, nll, 0).sum(),
        sums.bins.at[confidence_bin(confidence)].add(per_row),
        sums.top5.at[label].add((valid & in_top(logits, label)).astype(jnp.int32)),
        sums.hits + jnp.stack(hits) if hits else sums.hits,
    )
    return added, jnp.where(valid, predicted, -1)


def in_top(logits: jax.Array, label: jax.Array, top: int = TOP) -> jax.Array:
    """True for rows whose label is among the `top` classes with the largest logits.

    Among equal logits the class with the smaller index comes first, as it does in `argmax`, so the
    predicted class is the first of them. A logit that is not a number comes before every number.

    Args:
        logits: [B, K].
        label: i32[B] in [0, K).
        top: number of classes.

    Returns:
        bool[B].
    """
    own = jnp.take_along_axis(logits, label[:, None], axis=1)
    earlier = jnp.arange(logits.shape[1])[None] < label[:, None]
    odd, own_odd = jnp.isnan(logits), jnp.isnan(own)
    before = (logits > own) | (odd & ~own_odd)
    tied = (logits == own) | (odd & own_odd)
    return (before | (tied & earlier)).sum(axis=1) < top


def confidence_bin(confidence: jax.Array) -> jax.Array:
    """The bin that a confidence falls into, bins (i / n, (i + 1) / n] (Guo et al. 2017).

    Args:
        confidence: f32[B] in [0, 1].

    Returns:
        i32[B] in [0, ECE_BINS).
    """
    return jnp.clip(jnp.ceil(confidence * ECE_BINS).astype(jnp.int32) - 1, 0, ECE_BINS - 1)
