"""A network as a file of weights in the format safetensors.

The file holds arrays alone. Its description says how to build the network around them: the
arguments of `create_model`, and the steps before and after it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.checkpoint.weights_file import INSTALL
from purenoise_jax.data.pixels import normalize, to_float
from purenoise_jax.inference.classifier import Classifier
from purenoise_jax.inference.deployment import with_temperature
from purenoise_jax.models import create_model
from purenoise_jax.runtime.errors import ConfigError

SUFFIX = ".safetensors"
# A shift of a class that cannot occur; JSON has no infinity.
LOWEST = -1e30


def serialized(classifier: Classifier) -> bytes:
    """Returns the arrays that evaluation uses, by names such as "params/conv0/kernel".

    Args:
        classifier: whose network it is.

    Raises:
        ConfigError: the package safetensors is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise ConfigError(f"--to=safetensors needs the package safetensors: {INSTALL}") from None
    arrays = by_name(classifier.trained.variables)
    return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def description(classifier: Classifier) -> dict[str, Any]:
    """Returns the steps from images to probabilities, as JSON values.

    Args:
        classifier: whose network it is.

    Raises:
        ConfigError: the method treats the logits in a way that is no scale and shift of each class.
    """
    trained = classifier.trained
    config, classes = trained.run.config, len(trained.class_names)
    scale, shift = scale_and_shift(classifier)
    return {
        "create_model": {
            **{
                name: config.model[name]
                for name in ("name", "norm", "noise_grad", "head", "projector", "projector_width")
            },
            "dtype": config.dtype,
            "num_classes": classes,
        },
        "steps": [
            "pixels / 255",
            "(pixels - mean) / std, of each channel",
            "logits of the network, in evaluation mode (train=False)",
            "scale * logits + shift, of each class",
            "softmax",
        ],
        "mean": trained.mean.tolist(),
        "std": trained.std.tolist(),
        "scale": scale.tolist(),
        "shift": shift.tolist(),
    }


def scale_and_shift(classifier: Classifier) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scale f64[K] and the shift f64[K] that evaluation applies to the logits.

    Args:
        classifier: whose evaluation it is.

    Raises:
        ConfigError: evaluation does something else with them.
    """
    classes = len(classifier.class_names)
    zeros, ones = jnp.zeros((1, classes)), jnp.eye(classes)
    # Without the prior, which may be zero and has a shift of minus infinity then.
    own = with_temperature(classifier.trained.postprocess, classifier.deployment.temperature)
    scales = np.asarray(own(ones) - own(zeros))
    scale = np.diag(scales)
    probe = np.random.default_rng(0).normal(size=(5, classes)).astype(np.float32)
    expected = np.asarray(own(jnp.asarray(probe)))
    if not np.allclose(scale * probe + np.asarray(own(zeros)), expected, rtol=1e-4, atol=1e-4):
        raise ConfigError(
            "the method of this run does more with the logits than a scale and a shift of each "
            "class; legal: --to stablehlo or onnx"
        )
    shift = np.maximum(np.asarray(classifier.postprocess(zeros)), LOWEST)[0]
    return scale.astype(np.float64), shift.astype(np.float64)


def reader(content: bytes, described: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a network as a function of images uint8[N, H, W, C].

    Args:
        content: from `serialized`.
        described: from `description`, by way of JSON.
    """
    from safetensors.numpy import load

    variables: dict[str, Any] = {}
    for name, array in load(content).items():
        *folders, leaf = name.split("/")
        inner = variables
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[leaf] = array
    model = create_model(**described["create_model"])
    mean, std, scale, shift = (
        np.asarray(described[name], np.float32) for name in ("mean", "std", "scale", "shift")
    )

    @jax.jit
    def call(images: jax.Array) -> jax.Array:
        inputs = normalize(to_float(images), mean, std)
        logits, _ = model.apply(variables, inputs, train=False)
        return jax.nn.softmax(scale[None] * logits + shift[None])

    return lambda images: np.asarray(call(images))
