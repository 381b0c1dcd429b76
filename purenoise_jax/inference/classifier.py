"""A trained network as a function of images: probabilities, classes and features."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.data.sources.decode import depth_fault
from purenoise_jax.inference.calibration_file import FITTED, read_temperature
from purenoise_jax.inference.deployment import (
    CostsLike,
    Deployment,
    PriorLike,
    for_prior,
    read_costs,
    read_prior,
    with_temperature,
)
from purenoise_jax.inference.image_inputs import ImageLike, as_sequence, read_pixels
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.inference.temperature import Calibration, fit_temperature
from purenoise_jax.inference.trained import Trained, load_trained
from purenoise_jax.methods.class_shares import trained_shares
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.errors import ConfigError, DataError, all_faults, nearest
from purenoise_jax.runtime.numerics import with_precision

# The most images of a forward pass.
BATCH_SIZE = 256
# The most images that a warning names.
_NAMED = 5


class Classifier:
    """A trained network as a function of images.

    Images are uint8[N, H, W, C] with values 0..255, a path, an image of Pillow, or a sequence of
    paths, images and arrays. They are resized and converted as the test images of the run. A
    warning names files of 16 bits if none of them uses the highest bit, see `depth_fault`.

    Args:
        trained: from `load_trained`.
        prior: share of each class among the images to classify, see `deployment.read_prior` and
            `deployment.for_prior`; None = it is not known.
        costs: of errors, see `deployment.read_costs`; None = all cost the same.
        temperature: by which logits are divided, above 0, from `fit_temperature`.

    Raises:
        ConfigError: the prior or the costs do not fit the classes or the method.
    """

    def __init__(
        self,
        trained: Trained,
        prior: PriorLike | None = None,
        costs: CostsLike | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.trained = trained
        self.deployment = Deployment(
            read_prior(prior, trained.class_names, trained.class_counts),
            read_costs(costs, trained.class_names),
            temperature,
        )
        self.postprocess = for_prior(
            with_temperature(trained.postprocess, temperature),
            trained_shares(trained.recipe, trained.class_counts),
            self.deployment.prior,
        )
        self._variables = jax.device_put(trained.variables, jax.local_devices()[0])
        self._compute = jax.jit(
            with_precision(self._outputs, trained.matmul_precision),
            compiler_options=compiler_options(),
        )
        self._own_logits = jax.jit(
            with_precision(self._logits, trained.matmul_precision),
            compiler_options=compiler_options(),
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K names in label order."""
        return self.trained.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the network's input."""
        return self.trained.image_shape

    def predict_proba(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
        """Returns the probability of every class, f32[N, K].

        Args:
            images: see the class.

        Raises:
            DataError: images cannot be read; one message names the first few.
        """
        return self._all(images, self.probabilities)

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
        """Returns the name of the class of every image, str[N].

        It is the most probable class; with costs, that of the least expected cost.

        Args:
            images: see the class.

        Raises:
            DataError: images cannot be read; one message names the first few.
        """
        chosen, _ = self.deployment.decide(self.predict_proba(images))
        return np.array(self.class_names)[chosen]

    def features(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
        """Returns the pooled activations before the last linear layer, f32[N, F].

        Args:
            images: see the class.

        Raises:
            DataError: images cannot be read; one message names the first few.
        """
        return self._all(images, lambda pixels: self._run(pixels)[1])

    def fit_temperature(
        self, images: ImageLike | Iterable[ImageLike], labels: Sequence[str] | np.ndarray
    ) -> Calibration:
        """Fits a temperature on labelled images; `load` takes it.

        The images must not have trained the network. If the classifier has a prior, it should be
        that of these images; the classifier's own temperature does not matter.

        Args:
            images: see the class.
            labels: N class names, or int[N] in label order.

        Raises:
            DataError: images cannot be read, or labels are not classes or of another number.
        """
        logits = self.own_logits(images)
        return fit_temperature(logits, self.label_numbers(labels, len(logits)), self.prior_shift())

    def own_logits(self, images: ImageLike | Iterable[ImageLike]) -> np.ndarray:
        """Returns the logits of the run's own evaluation, f32[N, K]: no prior, temperature 1.

        Args:
            images: see the class.

        Raises:
            DataError: images cannot be read; one message names the first few.
        """
        return self._all(images, lambda pixels: self._padded(self._own_logits, pixels))

    def readable_logits(
        self, images: Sequence[ImageLike]
    ) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
        """Computes the logits of the run's own evaluation for the images that can be read.

        Args:
            images: paths, images of Pillow or arrays.

        Returns:
            Logits f32[M, K], int64[M] the places of their images, and for the place of every other
            image one line.
        """
        parts = [np.zeros((0, len(self.class_names)), np.float32)]
        rows = [np.zeros(0, np.int64)]
        faults: dict[int, str] = {}
        deep: dict[int, int] = {}
        for first, part in batches(images):
            read = read_pixels(part, self.image_shape, self.trained.view)
            faults |= {first + row: text for row, text in read.faults.items()}
            deep |= {first + row: largest for row, largest in read.largest.items()}
            if len(read.rows):
                rows.append(first + read.rows)
                parts.append(self._padded(self._own_logits, read.images))
        logits, places = np.concatenate(parts), np.concatenate(rows)
        if deep and (doubt := depth_fault(max(deep.values()), "of those given")):
            faults |= {place: f"{images[place]}: {doubt}" for place in deep}
            read_well = ~np.isin(places, [*deep])
            logits, places = logits[read_well], places[read_well]
        return logits, places, faults

    def prior_shift(self) -> np.ndarray:
        """Returns what the prior adds to logits after their division, f32[K]; 0 without one."""
        zeros = jnp.zeros((1, len(self.class_names)))
        own = with_temperature(self.trained.postprocess, self.deployment.temperature)
        shift: np.ndarray = np.asarray(self.postprocess(zeros) - own(zeros))[0]
        return shift

    def label_numbers(self, labels: Sequence[str] | np.ndarray, images: int) -> np.ndarray:
        """Returns labels as numbers, int[N].

        Args:
            labels: class names, or int[N] in label order.
            images: N.

        Raises:
            DataError: they are not classes, or of another number.
        """
        given = np.asarray(labels)
        if given.dtype.kind in "US":
            places = {name: label for label, name in enumerate(self.class_names)}
            given = np.array([places.get(str(name), -1) for name in given], np.int64)
        if given.shape != (images,) or given.dtype.kind not in "iu":
            raise DataError(f"labels: shape {given.shape}; legal: one for each of {images} images")
        if len(given) and (given.min() < 0 or given.max() >= len(self.class_names)):
            raise DataError("labels: one of them is no class of the run")
        return given

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the probability of every class, f32[N, K].

        Args:
            pixels: uint8[N, H, W, C] of the size of the network's input, N at most `BATCH_SIZE`.
        """
        return self._run(pixels)[0]

    def program(self) -> Callable[[jax.Array], jax.Array]:
        """The probabilities f32[N, K] of images uint8[N, H, W, C], as a function for JAX to trace.

        The parameters are its constants.
        """

        def probabilities(images: jax.Array) -> jax.Array:
            return self._outputs(self.trained.variables, images)[0]

        return with_precision(probabilities, self.trained.matmul_precision)

    def _outputs(self, variables: object, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, features = self.trained.forward(variables, images)
        return jax.nn.softmax(self.postprocess(logits)), features

    def _logits(self, variables: object, images: jax.Array) -> jax.Array:
        """The logits of the run's own evaluation."""
        return self.trained.postprocess(self.trained.forward(variables, images)[0])

    def _run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities, features = self._padded(self._compute, pixels)
        return probabilities, features

    def _padded(self, compute: Callable[..., Any], pixels: np.ndarray) -> Any:
        """The outputs of a program, on the host, for images uint8[N, H, W, C]."""
        # One program for each power of two, so that few are compiled.
        size = 1 << max(len(pixels) - 1, 0).bit_length()
        padding = [(0, size - len(pixels)), *[(0, 0)] * 3]
        outputs = compute(self._variables, jnp.asarray(np.pad(pixels, padding)))
        return jax.tree.map(lambda part: np.asarray(part)[: len(pixels)], outputs)

    def _all(
        self,
        images: ImageLike | Iterable[ImageLike],
        compute: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        given = as_sequence(images)
        parts, faults, deep, largest = [], [], [], 0
        for first, part in batches(given):
            read = read_pixels(part, self.image_shape, self.trained.view)
            faults += [f"image {first + row}: {text}" for row, text in read.faults.items()]
            largest = max([largest, *read.largest.values()])
            deep += [f"image {first + row} ({given[first + row]})" for row in read.largest]
            # After a fault, the others are only read, so that all faults are named at once.
            if not faults:
                parts.append(compute(read.images))
        if faults:
            raise all_faults("images", faults)
        if deep and (doubt := depth_fault(largest, "of those given")):
            more = ", ..." if len(deep) > _NAMED else ""
            warnings.warn(f"{', '.join(deep[:_NAMED])}{more}: {doubt}", stacklevel=3)
        if parts:
            return np.concatenate(parts)
        return compute(np.zeros((0, *self.image_shape), np.uint8))


def batches(
    images: Sequence[ImageLike] | np.ndarray,
) -> Iterator[tuple[int, Sequence[ImageLike] | np.ndarray]]:
    """Yields the parts of a sequence that fit one forward pass, each with the place of its first.

    Args:
        images: from `as_sequence`.
    """
    for first in range(0, len(images), BATCH_SIZE):
        yield first, images[first : first + BATCH_SIZE]


def load(
    run: str | Path,
    *,
    epoch: int | str | None = None,
    prior: PriorLike | None = None,
    costs: CostsLike | None = None,
    temperature: float | str = 1.0,
) -> Classifier:
    """Loads the network of a run, without the data that it was trained on.

        >>> import purenoise_jax
        >>> classifier = purenoise_jax.load("runs/digits")  # doctest: +SKIP
        >>> classifier.predict(["one.png", "two.png"])  # doctest: +SKIP

    Args:
        run: workdir of the run.
        epoch: completed epochs of the checkpoint; "best" = that of the best evaluation on
            validation images, by the metric `checkpoint.best`; None = the newest.
        prior: share of each class among the images to classify: "uniform", "train", a CSV file, a
            mapping, or K numbers; see `deployment.read_prior`. None = it is not known.
        costs: the cost of every error: a CSV file or K rows of K numbers; see
            `deployment.read_costs`. None = all cost the same.
        temperature: by which logits are divided, above 0; see `Classifier.fit_temperature`.
            "fitted" = that which purenoise_jax.calibrate has written into the workdir.

    Raises:
        ConfigError: the folder is not the workdir of a run, or an argument is not legal.
        CheckpointError: there is no such checkpoint, or it cannot be used.
    """
    (found,) = load_runs([run])
    trained = load_trained(found, epoch)
    if isinstance(temperature, str):
        temperature = _read_temperature(temperature, trained)
    return Classifier(trained, prior, costs, temperature)


def _read_temperature(text: str, trained: Trained) -> float:
    if text == FITTED:
        return read_temperature(trained.run.path, trained.step)
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"temperature={text} is not legal; legal: a number above 0, or {FITTED}"
            f"{nearest(text, [FITTED])}"
        ) from None
