"""The command line that fits a temperature to the probabilities of a run.

python -m purenoise_jax.calibrate RUN IMAGES
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial

from purenoise_jax.inference.classifier import load
from purenoise_jax.inference.listed_images import list_images
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.console import show, show_error
from purenoise_jax.runtime.errors import DataError
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.threads import exit_process

EXAMPLES = """
RUN is a workdir of purenoise_jax.main. IMAGES are as those of purenoise_jax.predict, and must not
have trained the network. Those whose class is not known are left out. Nothing is written; predict,
export and load take the temperature.

exit codes: 0 done, 2 usage, 3 an image cannot be read, or none has a class, 4 checkpoint,
            5 storage, 130 interrupted, 1 anything else

examples:
  python -m purenoise_jax.calibrate runs/mine photos/val
"""


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line's arguments."""
    parse = Parser(
        prog="python -m purenoise_jax.calibrate",
        description="Fits the temperature by which logits are divided, on labelled images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("run", metavar="RUN", help="workdir of a run")
    parse.add_argument("images", nargs="+", metavar="IMAGES", help="labelled images")
    parse.add_argument("--epoch", type=int, help="completed epochs; default: newest checkpoint")
    parse.add_argument("--prior", help="share of each class among IMAGES, as for predict")
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def main(argv: Sequence[str]) -> int:
    """Runs one command line, given without the program's name, and returns its exit code."""
    return run_command(
        partial(_calibrate, argv), debug="--debug" in argv, interrupted="interrupted"
    )


def _calibrate(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    # Orbax logs every step of a restore.
    logging.getLogger("absl").setLevel(logging.ERROR)
    compilation_cache.enable()
    classifier = load(args.run, epoch=args.epoch, prior=args.prior)
    listed, faults = list_images(args.images, classifier.class_names)
    for fault in faults:
        show_error(fault, style="yellow")
    known = [each for each in listed if each.label]
    if not known:
        raise DataError("no image lies in a folder named after a class, or has a label")
    fitted = classifier.fit_temperature(
        [each.image for each in known], [each.label for each in known]
    )
    show(f"temperature {fitted.temperature:.4g}, fitted on {fitted.images:,} images")
    show(f"negative log-likelihood {fitted.nll[0]:.4f} before, {fitted.nll[1]:.4f} after")
    show(f"expected calibration error {fitted.ece[0]:.4f} before, {fitted.ece[1]:.4f} after")
    return 0


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
