"""Reads the program that XLA compiles for a GPU, on a machine without one, and counts.

python -m benchmarks.gpu_program                             # ResNet-32 and WRN-28-10
python -m benchmarks.gpu_program --model resnet32 --dtype bfloat16 --out program.json

The counts are read off the compiled program, not measured. Kernels are fusions, library calls,
copies and other single launches of one step; a convolution is one, although the library may launch
more. Bytes are those of the arrays that a kernel reads and writes; of an array of which it takes a
slice, those of the slice. Milliseconds are lower bounds by the data sheet of the chip.
"""

import argparse
import collections
import datetime
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from rich.table import Table

from benchmarks.gpu_program.absent_gpu import CHIPS, CannotCompileError
from benchmarks.gpu_program.programs import Compiled, Line, compile_line
from benchmarks.gpu_program.roofline import GRAPH_US, LAUNCH_US, bounds
from benchmarks.run import positive, to_text
from purenoise_jax.models import MODELS, NORMS, REMATS
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.provenance import versions

STEPS = (("bn", ("erm",)), ("bn", ("open",)), ("aux_bn", ("open",)), ("dar_bn", ("open",)))
EXIT_CONFIG, EXIT_CANNOT = 2, 3


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_program",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--chip", choices=sorted(CHIPS), default="H100", help="to compile for (default H100)")
    add("--model", nargs="+", choices=sorted(MODELS), default=["resnet32", "wrn28_10"])
    add("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["bfloat16", "float32"])
    add(
        "--norm",
        nargs="+",
        choices=list(NORMS),
        help="norms, with --methods, instead of the four usual steps",
    )
    add("--methods", nargs="+", help="methods of a step, joined by +, such as open+sam")
    add("--batch", type=positive, default=128, help="rows of a step (default 128)")
    add(
        "--devices",
        type=positive,
        default=1,
        help="devices over which the batch is split (default 1)",
    )
    add("--pixels", type=positive, default=32, help="height and width of the images (default 32)")
    add("--classes", type=positive, default=10, help="number of classes (default 10)")
    add("--remat", choices=REMATS, default="none", help="activations that are computed again")
    add("--no_references", action="store_true", help="leave out the steps to compare with")
    add("--launch_us", type=float, default=LAUNCH_US, help="microseconds of a launch by the host")
    add("--graph_us", type=float, default=GRAPH_US, help="of a launch within a CUDA graph")
    add("--out", type=Path, help="JSON file; default: none")
    add("--texts", type=Path, help="folder for the texts of the programs; default: none")
    return parser.parse_args(argv)


def lines(options: argparse.Namespace) -> Iterator[Line]:
    """The steps to compile, in the order of the table."""
    steps: Sequence[tuple[str, tuple[str, ...]]] = STEPS
    if options.norm or options.methods:
        methods = [tuple(each.split("+")) for each in options.methods or ["open"]]
        steps = tuple((norm, each) for norm in options.norm or ["dar_bn"] for each in methods)
    for model in options.model:
        for dtype in options.dtype:
            common: dict[str, Any] = {
                "model": model,
                "dtype": dtype,
                "batch_size": options.batch,
                "devices": options.devices,
                "pixels": options.pixels,
                "classes": options.classes,
                "remat": options.remat,
            }
            if not options.no_references:
                yield Line(norm="flax", methods=("erm",), **common)
            for norm, each in steps:
                yield Line(norm=norm, methods=each, **common)
            if not options.no_references:
                norm, each = steps[-1]
                yield Line(norm=norm, methods=each, guard=False, **common)


def row_of(line: Line, compiled: Compiled, options: argparse.Namespace) -> dict[str, Any]:
    """The counts of a program."""
    kernels = compiled.kernels
    convolutions = [kernel for kernel in kernels if kernel.kind == "convolution"]
    number: collections.Counter[str] = collections.Counter()
    size: collections.Counter[str] = collections.Counter()
    for kernel in kernels:
        number[kernel.origin] += 1
        size[kernel.origin] += kernel.bytes
    cost = {"launch_us": options.launch_us, "graph_us": options.graph_us}
    collectives = [kernel for kernel in kernels if kernel.kind == "collective"]
    return {
        "name": line.name,
        "kernels": len(kernels),
        "convolutions": len(convolutions),
        "bytes": sum(kernel.bytes for kernel in kernels),
        "bytes_outside_convolutions": sum(
            kernel.bytes for kernel in kernels if kernel.kind != "convolution"
        ),
        "flops": sum(kernel.flops for kernel in kernels),
        "temporary_bytes": compiled.temporary_bytes,
        "collectives": len(collectives),
        "collective_bytes": sum(kernel.written for kernel in collectives),
        **bounds(kernels, options.chip, line.dtype, **cost),
        "convolutions_alone_ms": bounds(convolutions, options.chip, line.dtype)["work_ms"],
        "by_origin": {
            origin: {"kernels": count, "bytes": size[origin]}
            for origin, count in number.most_common()
        },
    }


def table(rows: list[dict[str, Any]], options: argparse.Namespace) -> Table:
    """The counts and bounds, a line for each program."""
    columns = {
        "kernels": lambda row: f"{row['kernels']:,}",
        "of it conv.": lambda row: f"{row['convolutions']:,}",
        "GB": lambda row: f"{row['bytes'] / 1e9:.2f}",
        "outside conv.": lambda row: f"{row['bytes_outside_convolutions'] / 1e9:.2f}",
        "TFLOP": lambda row: f"{row['flops'] / 1e12:.3f}",
        "MiB": lambda row: f"{row['temporary_bytes'] / 2**20:,.0f}",
        "conv. ms": lambda row: f"{row['convolutions_alone_ms']:.2f}",
        "work ms": lambda row: f"{row['work_ms']:.2f}",
        "step ms": lambda row: f"{row['step_ms']:.2f}",
        "graph ms": lambda row: f"{row['graph_step_ms']:.2f}",
    }
    if options.devices > 1:
        columns["collectives"] = lambda row: f"{row['collectives']:,}"
        columns["MB of them"] = lambda row: f"{row['collective_bytes'] / 1e6:.2f}"
    made = Table(
        title=f"read off the program for {options.devices} x {options.chip}, not measured; "
        f"launches at {options.launch_us:g} us, in a graph {options.graph_us:g} us"
    )
    made.add_column("step")
    for name in columns:
        made.add_column(name, justify="right")
    for row in rows:
        made.add_row(row["name"], *(text(row) for text in columns.values()))
    return made


def main(argv: list[str]) -> int:
    """Compiles and counts; returns the exit code."""
    options = parse(argv)
    console = SafeConsole(width=None if sys.stdout.isatty() else 180)
    started, rows = time.monotonic(), []
    for line in lines(options):
        begun = time.monotonic()
        try:
            compiled = compile_line(line, options.chip)
        except CannotCompileError as error:
            print(f"cannot compile for a GPU here: {error}", file=sys.stderr)
            return EXIT_CANNOT
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_CONFIG
        rows.append(row_of(line, compiled, options))
        console.print(f"{line.name}: compiled in {time.monotonic() - begun:.0f} s")
        if options.texts is not None:
            options.texts.mkdir(parents=True, exist_ok=True)
            (options.texts / f"{line.name.replace(' ', '-')}.txt").write_text(compiled.text)
        if options.out is not None:
            # After every program, so that an interrupted command keeps its counts.
            record = {
                "command": ["python", "-m", "benchmarks.gpu_program", *argv],
                "environment": {
                    **versions(),
                    "chip": options.chip,
                    "date": datetime.date.today().isoformat(),
                },
                "seconds": time.monotonic() - started,
                "read_off_the_program_not_measured": rows,
            }
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(to_text(record))
    console.print(table(rows, options))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
