"""A network as a StableHLO program, in the serialised form of `jax.export`.

The program holds the parameters and everything around the network: it maps uint8 images to
probabilities, for any number of images. `jax.export.deserialize` reads it; nothing of this package
is needed then.
"""

from collections.abc import Callable

import jax
import jax.export
import numpy as np

from purenoise_jax.inference.classifier import Classifier

SUFFIX = ".stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def serialized(classifier: Classifier) -> bytes:
    """Returns the program: uint8[N, H, W, C] -> f32[N, K], N free.

    Args:
        classifier: whose probabilities it computes.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *classifier.image_shape), np.uint8)
    exported = jax.export.export(jax.jit(classifier.program()), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def reader(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a program as a function of images uint8[N, H, W, C].

    Args:
        content: from `serialized`.
    """
    exported = jax.export.deserialize(bytearray(content))
    call = jax.jit(exported.call)
    return lambda images: np.asarray(call(images))
