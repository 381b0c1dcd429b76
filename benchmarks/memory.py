"""Memory of a training step with and without rematerialisation, by the compiler's own figure.

python -m benchmarks.memory --model resnet50 --pixels 64 --batch 16

Each step is compiled for this machine and not run. "temporary" is what the step needs beside its
arguments and results: activations above all, and gradients.
"""

import argparse
import sys
from collections.abc import Sequence

from rich.table import Table

from benchmarks.gpu_program.programs import Line, training_program
from benchmarks.run import positive
from purenoise_jax.models import MODELS, NORMS, REMATS
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.sharding import Placement


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", choices=sorted(MODELS), default="resnet50")
    add("--norm", choices=list(NORMS), default="dar_bn")
    add("--methods", default="open", help="of the step, joined by + (default open)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--batch", type=positive, default=16, help="rows of a step (default 16)")
    add("--pixels", type=positive, default=64, help="height and width of the images (default 64)")
    add("--classes", type=positive, default=10, help="number of classes (default 10)")
    return parser.parse_args(argv)


def temporary_bytes(line: Line) -> int:
    """Bytes that a step on one device of this machine needs beside its arguments and results."""
    placement = Placement(line.batch_size, 1)
    program, shapes = training_program(line, placement, compiler_options())
    return program.lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def main(argv: Sequence[str]) -> int:
    """Compiles the steps and prints a table; returns the exit code."""
    options = parse(argv)
    console = SafeConsole()
    title = f"{options.model}, {options.norm}, {options.methods}, {options.dtype}, batch "
    title += f"{options.batch}, {options.pixels} px"
    table = Table("model.remat", title=title)
    for name in ("temporary, MiB", "over that of none"):
        table.add_column(name, justify="right")
    sizes: dict[str, int] = {}
    for remat in REMATS:
        line = Line(
            options.model,
            options.norm,
            tuple(options.methods.split("+")),
            options.dtype,
            options.batch,
            looped=False,
            pixels=options.pixels,
            classes=options.classes,
            remat=remat,
        )
        sizes[remat] = temporary_bytes(line)
        share = sizes[remat] / sizes["none"]
        table.add_row(remat, f"{sizes[remat] / 2**20:,.1f}", f"{share:.2f}")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
