"""Rows of a step, in the two forms that a feed hands to it: indices, or the images themselves."""

from typing import Any

import flax.struct


@flax.struct.dataclass
class Rows:
    """Images that a step takes, by index; of a whole epoch with a first axis of steps.

    Attributes:
        index: i32[B], into the training set.
        valid: bool[B], False for padding.
    """

    index: Any
    valid: Any


@flax.struct.dataclass
class StreamedRows:
    """Images that a step takes, themselves, because the training set is not on the devices.

    Attributes:
        images: uint8[B, H, W, C].
        labels: i32[B].
        valid: bool[B], False for padding.
    """

    images: Any
    labels: Any
    valid: Any
