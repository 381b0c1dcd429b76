"""The command line that classifies images with a trained network.

python -m purenoise_jax.predict RUN IMAGES
"""

import argparse
import contextlib
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from purenoise_jax.inference.classifier import load
from purenoise_jax.inference.deployment_options import add_deployment, add_epoch
from purenoise_jax.inference.predict_files import predict_files
from purenoise_jax.inference.prediction_table import Tally
from purenoise_jax.runtime import compilation_cache, files
from purenoise_jax.runtime.console import show_error
from purenoise_jax.runtime.errors import ConfigError, DataError, counted, one_line
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.paths import expand
from purenoise_jax.runtime.threads import exit_process
from purenoise_jax.training.intervals import accuracy_intervals

EXAMPLES = """
RUN is the workdir of a training. IMAGES are folders, which are searched for images; image files;
.npz files with images or test_images; or CSV tables with a column path, or with the columns of the
lists that RUN was trained with. The true class of a file is the name of its folder, if that is a
class. Images that cannot be read, and faulty rows of a table, are named and left out.

exit codes: 0 done, 2 usage, 3 some images were left out, 4 checkpoint, 5 storage, 130
            interrupted, 1 anything else

examples:
  python -m purenoise_jax.predict runs/mine photos/test --out predictions.csv
  python -m purenoise_jax.predict runs/mine one.png two.png --top 3
  python -m purenoise_jax.predict runs/mine new --prior counts.csv --costs costs.csv
"""


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line's arguments."""
    parse = Parser(
        prog="python -m purenoise_jax.predict",
        description="Classifies images with the network of a run, and writes a CSV table. The data "
        "that it was trained on are not needed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("run", metavar="RUN", help="workdir of a run")
    parse.add_argument("images", nargs="+", metavar="IMAGES", help="images to classify")
    parse.add_argument("--out", metavar="FILE", help="the table; default: standard output")
    parse.add_argument(
        "--top",
        type=int,
        default=0,
        metavar="K",
        help="the K most probable classes, in place of a column for every class",
    )
    add_epoch(parse)
    add_deployment(parse)
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def main(argv: Sequence[str]) -> int:
    """Runs one command line, given without the program's name, and returns its exit code."""
    return run_command(partial(_predict, argv), debug="--debug" in argv, interrupted="interrupted")


def _predict(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if args.top < 0:
        raise ConfigError(f"--top={args.top} is not legal; legal: at least 0")
    # Orbax logs every step of a restore.
    logging.getLogger("absl").setLevel(logging.ERROR)
    out = expand(args.out, "--out") if args.out else None
    if out is not None:
        files.check_output(out, "--out")
    compilation_cache.enable()
    classifier = load(
        args.run,
        epoch=args.epoch,
        prior=args.prior,
        costs=args.costs,
        temperature=args.temperature,
    )
    with _opened(out) as file:
        tally, left_out = predict_files(
            classifier, args.images, file, top=args.top, warn=partial(show_error, style="yellow")
        )
    show_error(one_line(_summary(tally, out)), style="")
    if left_out:
        images = counted(left_out, "image was", "images were")
        raise DataError(f"{images} left out; the table has all others")
    return 0


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """Opens the table; a file gets its name when it is complete."""
    if out is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with files.folders_above(out), files.replacing(out) as raw:
        # As in the names of files, bytes that are not UTF-8 stay as they are.
        text = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")
        yield text
        text.flush()
        text.detach()


def _summary(tally: Tally, out: Path | None) -> str:
    line = counted(tally.images, "image") + (f" in {out}" if out else "")
    if tally.accuracy is not None and tally.balanced_accuracy is not None:
        spread = accuracy_intervals(tally.results)
        ends, balanced = (
            f"(95 % interval {100 * low:.1f} to {100 * high:.1f})" for low, high in spread[:2]
        )
        line += (
            f"; accuracy {100 * tally.accuracy:.2f} % {ends}, "
            f"{tally.correct:,} of {tally.known:,} whose class is known; balanced accuracy "
            f"{100 * tally.balanced_accuracy:.2f} % {balanced}"
        )
    return line


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
