"""Measures speed and writes JSON and tables.

python -m benchmarks.run                      # all suites that this machine can run
python -m benchmarks.run --suite steps norms --model resnet32 --minutes 10 --out speed.json

Compared programs run in turn (A B, B A, ...) in one process; a time is the median of its rounds,
with quartiles. Ratios are typical of a machine; milliseconds only of one machine on one day.
"""

import argparse
import contextlib
import datetime
import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

# Two frameworks share a GPU here, so neither may reserve all of its memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


from benchmarks.bench import Bench
from benchmarks.suites import SUITES
from benchmarks.timing import cpus
from purenoise_jax.methods import METHODS
from purenoise_jax.models import MODELS, NORMS
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.training.provenance import versions


def positive(text: str) -> int:
    """Reads an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def parse(argv: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--suite", nargs="+", choices=list(SUITES), default=list(SUITES), help="suites to run")
    add("--model", nargs="+", choices=sorted(MODELS), help="networks, instead of each suite's own")
    add(
        "--norm",
        nargs="+",
        choices=list(NORMS),
        default=list(NORMS),
        help="norms of the suite steps",
    )
    add(
        "--methods",
        nargs="+",
        choices=list(METHODS),
        default=list(METHODS),
        metavar="METHOD",
        help="methods of the suite methods (default: all)",
    )
    add("--dtype", nargs="+", choices=("float32", "bfloat16"))
    add(
        "--batch",
        type=positive,
        help="batch size, instead of 128 (smaller for wide networks on a CPU)",
    )
    add("--rounds", type=positive, default=15, help="rounds of a measurement, at most (default 15)")
    add(
        "--minutes",
        type=float,
        default=60.0,
        help="begin no measurement after this time (default 60)",
    )
    add(
        "--steps_per_call",
        type=positive,
        default=20,
        help="steps per call on a GPU, looped on the device (default 20)",
    )
    add(
        "--epochs",
        type=positive,
        default=14,
        help="epochs of the run whose overhead per epoch is measured",
    )
    add("--eval_images", type=positive, default=10_000)
    add(
        "--torch_forms",
        nargs="*",
        choices=("plain", "channels_last", "compiled"),
        default=("plain", "channels_last", "compiled"),
        help="forms of the PyTorch steps",
    )
    add("--out", type=Path, help="JSON file; default: none")
    return parser.parse_args(argv)


def environment() -> dict[str, Any]:
    """Versions, device and date of the measurements."""
    found: dict[str, Any] = dict(versions())
    found |= {"date": datetime.date.today().isoformat(), "cpus": cpus()}
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["torch"] = metadata.version("torch")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found["cpu"] = next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        found["cpu"] = "unknown"
    return found


def main(argv: list[str]) -> int:
    """Runs the suites in order."""
    options = parse(argv)
    console = SafeConsole(width=None if sys.stdout.isatty() else 150)
    bench = Bench(options, console)
    where = environment()
    console.print(", ".join(f"{k} {v}" for k, v in where.items()))
    started = time.monotonic()
    for suite, measure in SUITES.items():
        if suite in options.suite:
            measure(bench)
            if options.out is not None:
                # After every suite, so that an interrupted command keeps its measurements.
                write(argv, options.out, bench, where, started)
    console.print(f"{time.monotonic() - started:,.0f} s")
    return 0


def write(argv: list[str], out: Path, bench: Bench, where: dict[str, Any], started: float) -> None:
    """Writes all rows measured so far, a line each."""
    record = {
        "command": ["python", "-m", "benchmarks.run", *argv],
        "environment": where,
        "seconds": time.monotonic() - started,
        "rows": bench.rows,
        "not_measured": bench.skipped,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(to_text(record))


def to_text(record: dict[str, Any]) -> str:
    """Formats JSON with each row of a list on its own line."""
    lines = []
    for key, value in record.items():
        if value and isinstance(value, list) and isinstance(value[0], dict):
            rows = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return "{" + ",\n ".join(lines) + "}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
