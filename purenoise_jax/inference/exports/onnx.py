"""A network as an ONNX model: uint8 images to probabilities, for any number of images.

The converter is jax2onnx, and onnxruntime computes the model that is compared with the run.
"""

import importlib
import logging
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import numpy as np

from purenoise_jax.inference.classifier import Classifier
from purenoise_jax.runtime.errors import ConfigError, one_line

INSTALL = "pip install 'jax2onnx>=0.13,<0.14' onnxruntime"
SUFFIX = ".onnx"
INPUT, OUTPUT = "images", "probabilities"


def serialized(classifier: Classifier) -> bytes:
    """Returns the model: images uint8[N, H, W, C] -> probabilities f32[N, K], N free.

    Args:
        classifier: whose probabilities it computes.

    Raises:
        ConfigError: a package is not installed, or the converter does not know an operation.
    """
    # It warns at import of plugins for other libraries that it cannot load.
    logging.getLogger("jax2onnx").setLevel(logging.ERROR)
    try:
        # With it the model is checked.
        importlib.import_module("onnxruntime")
        from jax2onnx import to_onnx
    except ImportError:
        raise ConfigError(f"--to=onnx needs jax2onnx and onnxruntime: {INSTALL}") from None
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *classifier.image_shape), np.uint8)
    try:
        with warnings.catch_warnings():
            # The converter itself asks JAX for float64, which is switched off.
            warnings.simplefilter("ignore")
            model = to_onnx(
                classifier.program(),
                [images],
                model_name="classifier",
                input_names=[INPUT],
                output_names=[OUTPUT],
            )
    except Exception as error:
        # The converter raises errors of many kinds for what it does not know.
        raise ConfigError(
            f"--to=onnx: jax2onnx cannot convert this network ({one_line(error)[:200]}); legal: "
            "stablehlo, safetensors"
        ) from error
    return bytes(model.SerializeToString())


def reader(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a model as a function of images uint8[N, H, W, C], computed on the CPU.

    Args:
        content: from `serialized`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images})[0])


def description(classifier: Classifier) -> dict[str, Any]:
    """Returns the names of the model's input and output, as JSON values."""
    del classifier
    return {"input_name": INPUT, "output_name": OUTPUT}
