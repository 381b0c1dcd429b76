"""Confidence intervals of accuracies.

Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
"""

import math

# The quantile of the normal distribution for 95 percent.
QUANTILE = 1.959963984540054


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Returns the 95 percent score interval of an accuracy, both ends in [0, 1].

    It is that of independent images of one population: it says how much the accuracy would differ
    on other images of the same kind, and nothing of other runs.

        >>> [round(end, 3) for end in wilson(9, 10)]
        [0.596, 0.982]

    Args:
        correct: images that are classified right.
        images: all images, at least 1.
    """
    share, square = correct / images, QUANTILE**2
    centre = (share + square / (2 * images)) / (1 + square / images)
    spread = math.sqrt(share * (1 - share) / images + square / (4 * images**2))
    half = QUANTILE * spread / (1 + square / images)
    return max(centre - half, 0.0), min(centre + half, 1.0)
