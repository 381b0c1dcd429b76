"""The time that a run takes on a CPU, estimated before its first step, and smaller networks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purenoise_jax.models.pretrained import shapes_of
from purenoise_jax.runtime.console import duration
from purenoise_jax.runtime.flops import flops_of

# Multiplications a second of a core in training steps, rounded from ResNet-32: 26.5e9 in 0.53 to
# 0.66 s on two cores. Networks and machines differ, so a run tells its own rate once it trains.
PER_CORE = 2e10
# A step computes the outputs, the gradient by the activations and that by the parameters.
PASSES = 3
# A run that takes longer is offered a smaller network.
LONG_SECONDS = 3600
# A run that sees fewer pixels is not looked at: with any network it takes less.
FEWEST_PIXELS = 2e7
# Multiplications for an image of 32 x 32 and of 224 x 224, from `multiplications`; a network takes
# seconds to be traced. By decreasing cost, for small images and for large ones.
SMALL = {
    "wrn28_10": 5_243e6,
    "wrn16_4": 393e6,
    "resnet56": 125e6,
    "resnet32": 69e6,
    "resnet20": 41e6,
    "resnet8": 12e6,
}
LARGE = {
    "resnet152": 11_512e6,
    "resnet101": 7_799e6,
    "resnet50": 4_087e6,
    "resnet34": 3_663e6,
    "resnet18": 1_814e6,
    "resnet10": 889e6,
}
PER_PIXEL = {
    **{name: count / 32**2 for name, count in SMALL.items()},
    **{name: count / 224**2 for name, count in LARGE.items()},
}
SIDES = (224, 128, 64, 32)


class Candidate(NamedTuple):
    """A network and the side of its images; a side of 0 keeps that of the run."""

    model: str
    side: int


def multiplications(model: Any, image_shape: tuple[int, int, int]) -> int:
    """Counts the multiplications of convolutions and products for the logits of one image.

    The network is traced, not compiled or run.

    Args:
        model: from `create_model`.
        image_shape: (H, W, C).
    """
    variables = shapes_of(model, image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # Two FLOPs are a multiplication and an addition.
    return flops_of(lambda v, x: model.apply(v, x, train=False)[0], variables, image) // 2


def seconds(multiplications_per_image: float, images: float, cores: int) -> float:
    """Estimates the time of training.

    Args:
        multiplications_per_image: from `multiplications`.
        images: that are trained with, an image of two epochs counted twice.
        cores: of all processes.
    """
    return PASSES * multiplications_per_image * images / (PER_CORE * cores)


def cost_line(
    name: str,
    model: Any,
    image_shape: tuple[int, int, int],
    *,
    images: int,
    cores: int,
    resizes: bool,
) -> str:
    """Line of the header about a long run on a CPU, with an offer; "" for a run of up to an hour.

    Args:
        name: of the network.
        model: the network, which is traced if it is not in the tables.
        image_shape: (H, W, C).
        images: that are left to train with, an image of two epochs counted twice.
        cores: of all processes.
        resizes: images are resized, so they can have another size.
    """
    if images * image_shape[0] * image_shape[1] < FEWEST_PIXELS:
        return ""
    here = seconds(_each(Candidate(name, 0), name, model, image_shape), images, cores)
    if here <= LONG_SECONDS:
        return ""
    line = f"about {duration(here)} on {cores} CPU cores, measured once it trains"
    offered = offer(name, model, image_shape, time=here, most=LONG_SECONDS, resizes=resizes)
    return f"{line}; smaller: {offered}" if offered else line


def offer(
    name: str,
    model: Any,
    image_shape: tuple[int, int, int],
    *,
    time: float,
    most: float,
    resizes: bool,
) -> str:
    """Offers the largest of the cheaper networks that is fast enough, otherwise the cheapest.

    Args:
        name: of the network of a run.
        model: see `cost_line`.
        image_shape: (H, W, C).
        time: seconds that the run takes.
        most: seconds that it should take at most.
        resizes: see `cost_line`.

    Returns:
        Its fields and its time; "" if no network is cheaper than that of the run.
    """
    here = _each(Candidate(name, 0), name, model, image_shape)
    best: tuple[float, Candidate] | None = None
    for candidate in _smaller(name, image_shape[0] if resizes else 0):
        takes = time * _each(candidate, name, model, image_shape) / here
        if best is None or takes < best[0]:
            best = takes, candidate
        if takes <= most:
            break
    if best is None or best[0] >= time:
        return ""
    takes, chosen = best
    fields = f"--config.model.name={chosen.model}"
    if chosen.side:
        fields += f" --config.data.image_size={chosen.side}"
    return f"{fields}, about {duration(takes)}, in a workdir of its own"


def _each(candidate: Candidate, name: str, model: Any, image_shape: tuple[int, int, int]) -> float:
    """Multiplications for an image; a network that is in no table is that of the run, `name`."""
    height, width, _ = image_shape
    pixels = candidate.side**2 or height * width
    if candidate.model in PER_PIXEL:
        return pixels * PER_PIXEL[candidate.model]
    return multiplications(model, image_shape) * pixels / (height * width)


def _smaller(name: str, side: int) -> list[Candidate]:
    """Networks of the kind of another, largest first, then the smallest with smaller images.

    Args:
        name: of the network.
        side: of its images; 0 = it cannot change.
    """
    # Those that are in neither list are replaced by the networks for small images.
    kind = [*(LARGE if name in LARGE else SMALL)]
    found = [Candidate(each, 0) for each in kind[kind.index(name) + 1 if name in kind else 0 :]]
    smallest = found[-1].model if found else name
    return found + [Candidate(smallest, each) for each in SIDES if each < side]
