"""Temperature scaling: one number, fitted on labelled images, that makes probabilities truer.

Source: Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", section
4.2.
"""

from typing import NamedTuple

import numpy as np

from purenoise_jax.inference.reliability import log_probabilities, reliability
from purenoise_jax.runtime.errors import DataError

# Between these the likelihood is maximised. Without errors among the images it grows for ever as
# the temperature falls, and with errors alone it may as the temperature rises.
LOWEST, HIGHEST = 0.01, 100.0
# READING: Guo et al. fit on thousands of images, and name no least number. Below this one, the
# programs warn that the temperature is mostly chance.
FEW_IMAGES = 50


class Calibration(NamedTuple):
    """A temperature, and how well the probabilities fit the images before and after it.

    Attributes:
        temperature: by which logits are divided, between `LOWEST` and `HIGHEST`; 1 if the images
            determine none.
        images: number of images that it was fitted on.
        nll: mean negative log-likelihood in nats at temperature 1, and at the fitted one.
        ece: expected calibration error in [0, 1], likewise.
        undetermined: the reason why the images determine no temperature; "" = they do.
    """

    temperature: float
    images: int
    nll: tuple[float, float]
    ece: tuple[float, float]
    undetermined: str = ""


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, shift: np.ndarray | float = 0.0
) -> Calibration:
    """Fits the temperature T with which softmax(logits / T + shift) is the most likely.

    The predicted classes stay as they are if the shift is the same for all classes.

    DEVIATION: where the likelihood has no maximum between `LOWEST` and `HIGHEST`, as it has none if
    all images are classified right, the temperature stays 1. A bound would be an artefact of the
    search, and at the lower one every probability would be 0 or 1.

    Args:
        logits: f32[N, K], of images that did not train the network.
        labels: int[N] in [0, K).
        shift: f32[K], of a prior, see `deployment.for_prior`; 0 = there is none.

    Raises:
        DataError: there are no images.
    """
    if not len(labels):
        raise DataError("there is no labelled image to fit a temperature on")
    logits = np.asarray(logits, np.float64)
    shift = np.broadcast_to(np.maximum(shift, -1e30), logits.shape[1:])
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        """The derivative of the mean negative log-likelihood by 1 / T, which only increases."""
        shares = np.exp(log_probabilities(inverse * logits + shift))
        return float(((shares * logits).sum(axis=1) - own).mean())

    low, high = 1 / HIGHEST, 1 / LOWEST
    undetermined = ""
    if slope(high) <= 0:
        right = (logits.argmax(axis=1) == labels).all()
        undetermined = (
            "every image is classified right, so the likelihood only grows as the temperature falls"
            if right
            else f"the likelihood grows down to temperature {LOWEST:g}"
        )
    elif slope(low) >= 0:
        undetermined = f"the likelihood grows up to temperature {HIGHEST:g}"
    found = 1.0
    if not undetermined:
        for _ in range(80):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if slope(middle) > 0 else (middle, high)
        found = 1 / (low * high) ** 0.5
    before, after = (reliability(logits / t + shift, labels) for t in (1.0, found))
    nll, ece = (before.nll, after.nll), (before.ece, after.ece)
    return Calibration(found, len(labels), nll, ece, undetermined)
