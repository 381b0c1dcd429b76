"""The command line of the figures.

python -m purenoise_jax.analysis FIGURE RUN...
"""

import argparse
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from purenoise_jax.analysis.catalog import FIGURES
from purenoise_jax.analysis.drawing import Options, save
from purenoise_jax.analysis.load import load_runs
from purenoise_jax.console import show_error
from purenoise_jax.errors import PureNoiseError

STORAGE = 5


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    listing = "\n".join(f"  {name:<16}{entry.help}" for name, entry in FIGURES.items())
    parse = argparse.ArgumentParser(
        prog="python -m purenoise_jax.analysis",
        description="Draws figures from the workdirs of runs: PNG, PDF, and their numbers as JSON.",
        epilog=f"figures:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("figure", choices=list(FIGURES), metavar="FIGURE")
    parse.add_argument("runs", nargs="+", metavar="RUN", help="workdir of a run")
    parse.add_argument("--out", help="folder for the files; default: RUN/figures of the first run")
    parse.add_argument("--epoch", type=int, help="of the checkpoints; default: the newest")
    parse.add_argument("--seed", type=int, default=0, help="of the figure's random choices")
    parse.add_argument("--images", type=int, default=0, help="noise images to look at; 0 = usual")
    parse.add_argument("--data", default="", help="where the data lies now")
    parse.add_argument("--ood", default="", help="out-of-distribution data set, such as cifar100")
    parse.add_argument("--ood_data", default="", help="where that lies; default: beside the data")
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def main(argv: Sequence[str]) -> int:
    """Runs one command line, without the program's name, and returns its exit code."""
    args = parser().parse_args(argv)
    # Orbax warns of every folder that is only read.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        runs = load_runs(args.runs, args.data)
        options = Options(args.epoch, args.seed, args.images, args.ood, args.ood_data)
        folder = Path(args.out).expanduser() if args.out else runs[0].path / "figures"
        for path in save(FIGURES[args.figure].draw(runs, options), folder, args.figure):
            print(path)
    except (PureNoiseError, OSError) as error:
        if args.debug:
            traceback.print_exc()
        show_error(f"error: {error}")
        return error.exit_code if isinstance(error, PureNoiseError) else STORAGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
