"""Class frequencies of test sets other than the one at hand, as in studies of a shifted test set.

Source: Hong et al. 2021, section 4.3; Zhang et al. 2022, section 4.3.
"""

import numpy as np

RATIOS = (50, 25, 10, 5, 2)
# Forward: as imbalanced as a training set, frequent classes first. Backward: rare classes first.
NAMES = (
    *(f"forward {ratio}" for ratio in RATIOS),
    "uniform",
    *(f"backward {ratio}" for ratio in reversed(RATIOS)),
)


def class_shares(class_counts: np.ndarray) -> np.ndarray:
    """Returns the share of each class in the test sets of `NAMES`, f64[P, K].

    The shares fall exponentially by rank from the most frequent class of the training set to the
    rarest, by a factor of the ratio in all, or rise from it for the backward ones.

    Args:
        class_counts: int[K], training images per class.
    """
    # Among equals the later class counts as rarer, as it does in `metrics.frequency_groups`.
    rank = np.empty(len(class_counts))
    rank[np.argsort(-np.asarray(class_counts), kind="stable")] = np.arange(len(class_counts))
    place = rank / max(len(class_counts) - 1, 1)
    ratios = np.array([*RATIOS, 1, *(1 / ratio for ratio in reversed(RATIOS))])
    shares = ratios[:, None] ** -place[None]
    return shares / shares.sum(axis=1, keepdims=True)


def shifted_accuracy(
    images: np.ndarray, correct: np.ndarray, hits: np.ndarray, class_counts: np.ndarray
) -> list[list[float]] | None:
    """Accuracy on each test set of `NAMES`, from the recalls on the test set at hand.

    Args:
        images: int[K], test images of each class.
        correct: int[K], those of them that are classified correctly.
        hits: int[P, K], images of each class that are classified correctly if the shares of the
            classes in the test set are known, see `class_shares.for_evaluation`.
        class_counts: int[K], training images per class.

    Returns:
        For each, [accuracy if the shares are not known, accuracy if they are], in [0, 1]; None if
        the test set has no image of a class.
    """
    if not images.all():
        return None
    shares = class_shares(class_counts)
    unknown = shares @ (correct / images)
    known = (shares * (hits / images)).sum(axis=1)
    return np.stack([unknown, known], axis=1).tolist()
