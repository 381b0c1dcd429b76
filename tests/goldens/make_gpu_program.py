"""Makes gpu_program.txt, a small program that XLA compiled for an absent H100.

    python -m tests.goldens.make_gpu_program    # with the extra [cuda12]

A loop of training steps of one convolution and one linear layer, written so that everything that
`benchmarks.gpu_program` counts in its own way occurs: a batch that is a slice of a data set, and a
result that is written into an array in place.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.gpu_program import absent_gpu

OUT = Path(__file__).parent / "gpu_program.txt"
IMAGES, BATCH, SIZE, CHANNELS, CLASSES, STEPS = 4096, 8, 16, 16, 128, 1000


def step(carry, images, row):
    """One step; its loss is written into an array."""
    kernel, head, losses = carry
    x = jax.lax.dynamic_slice_in_dim(images, row * BATCH, BATCH).astype(jnp.float32)

    def loss(kernel, head):
        layout = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return (jnp.maximum(y, 0).mean((1, 2)) @ head).sum()

    value, grads = jax.value_and_grad(loss, (0, 1))(kernel, head)
    with jax.named_scope("guard"):
        finite = jnp.isfinite(value)
        kernel, head = (
            jnp.where(finite, weight - grad, weight)
            for weight, grad in zip((kernel, head), grads, strict=True)
        )
    return kernel, head, jax.lax.dynamic_update_index_in_dim(losses, value, row, 0)


def main():
    """Compiles, and writes the text without the parts that nothing reads."""
    mesh = Mesh(np.array(absent_gpu.devices("H100", 1)), ("data",))

    def shape(dtype, *sizes):
        sharding = NamedSharding(mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    carry = (
        shape(np.float32, 3, 3, 3, CHANNELS),
        shape(np.float32, CHANNELS, CLASSES),
        shape(np.float32, STEPS),
    )
    images = shape(np.uint8, IMAGES, SIZE, SIZE, 3)

    def steps(carry, images, count):
        return jax.lax.fori_loop(0, count, lambda row, carry: step(carry, images, row), carry)

    with absent_gpu.traced_for_gpu():
        lowered = jax.jit(steps, donate_argnums=0).lower(carry, images, shape(np.int32))
        text = lowered.compile().as_text()
    # The tables of source files and stack frames, and the settings of the library calls.
    text = text[text.index("\n%") :]
    text = re.sub(r", backend_config=\{.*\}", "", text)
    text = re.sub(r' (scheduling_name|deduplicated_name)="[^"]*"| stack_frame_id=\d+', "", text)
    OUT.write_text(f"// jax {jax.__version__}, by tests/goldens/make_gpu_program.py\n{text}")


if __name__ == "__main__":
    main()
