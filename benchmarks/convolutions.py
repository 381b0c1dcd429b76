"""Times every convolution of a network by itself, forward and both gradients, beside PyTorch's."""

import collections
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Program, cpus, interleave
from purenoise_jax.models import conv, create_model
from purenoise_jax.runtime.compiler import compiler_options

PARTS = ("forward", "input gradient", "weight gradient")
# Calls timed together, because idle threads take long to wake up.
CALLS = 10


class Shape(NamedTuple):
    """A square convolution of square images."""

    size: int
    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int

    def __str__(self) -> str:
        name = f"{self.size}x{self.size}, {self.inputs} -> {self.outputs}, kernel {self.kernel}"
        return f"{name}, stride {self.stride}" if self.stride > 1 else name


def shapes_of(model: str) -> dict[Shape, int]:
    """Counts the convolutions of a network for 32x32 images by shape."""
    network = create_model(model, num_classes=10)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    jaxpr = jax.make_jaxpr(lambda v, x: network.apply(v, x, train=False)[0])(variables, images)
    found: collections.Counter[Shape] = collections.Counter()
    for eqn in jaxpr.jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            x: Any = eqn.invars[0].aval
            w: Any = eqn.invars[1].aval
            stride, padding = eqn.params["window_strides"][0], eqn.params["padding"][0][0]
            found[Shape(x.shape[1], w.shape[2], w.shape[3], w.shape[0], stride, padding)] += 1
    return dict(found)


def jax_programs(shape: Shape, batch_size: int) -> dict[str, Program]:
    """Programs for forward and gradients in JAX, compiled as in training."""
    rng = np.random.default_rng(0)

    def draw(*size: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=size), jnp.float32)

    def convolve(x: jax.Array, w: jax.Array) -> jax.Array:
        pad = (shape.padding, shape.padding)
        return conv.convolve(
            x, w, (shape.stride,) * 2, (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x = draw(batch_size, shape.size, shape.size, shape.inputs)
    w = draw(shape.kernel, shape.kernel, shape.inputs, shape.outputs)
    ct = convolve(x, w)
    functions: dict[str, Callable[..., jax.Array]] = {
        "forward": convolve,
        "input gradient": lambda x, w, ct: jax.vjp(lambda x: convolve(x, w), x)[1](ct)[0],
        "weight gradient": lambda x, w, ct: jax.vjp(lambda w: convolve(x, w), w)[1](ct)[0],
    }

    def program(part: str) -> Program:
        arguments = (x, w) if part == "forward" else (x, w, ct)
        compiled = jax.jit(functions[part], compiler_options=compiler_options())
        return _program(lambda: compiled(*arguments).block_until_ready())

    return {f"jax {part}": program(part) for part in PARTS}


def _program(call: Callable[[], Any]) -> Program:
    def run() -> None:
        for _ in range(CALLS):
            call()

    return Program(run, CALLS)


def torch_programs(shape: Shape, batch_size: int) -> dict[str, Program]:
    """The same programs in PyTorch, channels last."""
    import torch

    torch.set_num_threads(cpus())
    layout = torch.channels_last
    x = torch.randn(batch_size, shape.inputs, shape.size, shape.size)
    x = x.contiguous(memory_format=layout)
    w = torch.randn(shape.outputs, shape.inputs, shape.kernel, shape.kernel)
    w = w.contiguous(memory_format=layout)
    stride, padding = [shape.stride] * 2, [shape.padding] * 2
    forward = partial(torch.nn.functional.conv2d, x, w, stride=stride, padding=padding)
    ct = forward()

    def backward(wanted: list[bool]) -> Program:
        return _program(
            lambda: torch.ops.aten.convolution_backward(
                ct, x, w, None, stride, padding, [1, 1], False, [0, 0], 1, wanted
            )
        )

    return {
        "torch forward": _program(forward),
        "torch input gradient": backward([True, False, False]),
        "torch weight gradient": backward([False, True, False]),
    }


def measure(model: str, batch_size: int, *, with_torch: bool) -> list[dict[str, Any]]:
    """A row for every shape, in milliseconds per call, and one for the total of a step."""
    rows: list[dict[str, Any]] = []
    total: collections.Counter[str] = collections.Counter()
    for shape, count in shapes_of(model).items():
        programs = jax_programs(shape, batch_size)
        if with_torch:
            programs |= torch_programs(shape, batch_size)
        # Training never computes the gradient with respect to the images.
        programs = {k: v for k, v in programs.items() if shape.inputs != 3 or "input" not in k}
        times = interleave(programs, rounds=5, seconds=30)
        ms = {name: found["ms"] for name, found in times.items()}
        rows.append({"name": str(shape), "count": count} | ms)
        for name, value in ms.items():
            total[name] += count * value
    return [*rows, {"name": "a step", "count": sum(row["count"] for row in rows)} | dict(total)]
