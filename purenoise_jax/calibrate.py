"""The command line that fits a temperature to the probabilities of a run.

python -m purenoise_jax.calibrate RUN [IMAGES]
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from purenoise_jax.inference.calibration_file import write_calibration
from purenoise_jax.inference.classifier import Classifier, load
from purenoise_jax.inference.deployment_options import add_epoch
from purenoise_jax.inference.listed_images import list_images
from purenoise_jax.inference.reliability import Scaled, log_probabilities, scaled
from purenoise_jax.inference.split_outputs import TEST, VAL, has_split, split_outputs
from purenoise_jax.inference.temperature import FEW_IMAGES, Calibration, fit_temperature
from purenoise_jax.inference.thresholds import best_thresholds
from purenoise_jax.inference.trained import Trained
from purenoise_jax.inference.unmeasured import unmeasured
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.console import show, show_error
from purenoise_jax.runtime.errors import ConfigError, DataError, counted, one_line
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.threads import exit_process

EXAMPLES = """
RUN is the workdir of a training. IMAGES are as those that predict takes, and must not
have trained the network. Those whose class is not known are left out. Without IMAGES the run must
have validation images, and its data must be at hand. If they determine no temperature, because all
are classified right, it stays 1. Images that cannot be read are named and left out.
RUN/calibration.json has the temperature, which predict, export and load take as "fitted", and a
threshold for each class.

exit codes: 0 done, 2 usage, 3 some images were left out, or none has a class, 4 checkpoint,
            5 storage, 130 interrupted, 1 anything else

examples:
  python -m purenoise_jax.calibrate runs/mine
  python -m purenoise_jax.calibrate runs/mine photos/val
"""


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line's arguments."""
    parse = Parser(
        prog="python -m purenoise_jax.calibrate",
        description="Fits the temperature by which logits are divided, and chooses a threshold "
        "for each class, on labelled images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("run", metavar="RUN", help="workdir of a run")
    parse.add_argument(
        "images",
        nargs="*",
        metavar="IMAGES",
        help="labelled images; default: the validation images of the run",
    )
    add_epoch(parse)
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
    trained, shift = classifier.trained, classifier.prior_shift()
    # The split is evaluated by another part of the package, which takes numbers only.
    epoch = None if args.epoch is None else round(trained.epoch)
    left_out = 0
    if args.images:
        logits, labels, left_out = _given(classifier, args.images)
    else:
        logits, labels = _validation(trained, epoch)
    fitted = fit_temperature(logits, labels, shift)
    thresholds = best_thresholds(
        np.exp(log_probabilities(logits / fitted.temperature + shift)), labels
    )
    _show(fitted)
    images = " ".join(args.images) or "the validation images of the run"
    names = trained.class_names
    seen = scaled(
        logits,
        labels,
        fitted.temperature,
        shift=shift,
        split="" if args.images else VAL,
        title="images that the temperature was fitted on",
    )
    if not args.images and trained.run.shown == TEST and has_split(trained.run, TEST):
        seen = _tested(trained, epoch, fitted.temperature)
    path = write_calibration(
        trained.run.path, trained.step, images, names, fitted, thresholds, seen
    )
    show(one_line(path))
    if left_out:
        images = counted(left_out, "image was", "images were")
        raise DataError(f"{images} left out; the fit is on all others")
    return 0


def _show(fitted: Calibration) -> None:
    images = counted(fitted.images, "image")
    if fitted.undetermined:
        show(f"temperature 1 is kept: {images}, and {fitted.undetermined}")
        show(f"negative log-likelihood {fitted.nll[0]:.4f}")
        show(f"expected calibration error {fitted.ece[0]:.4f}")
        return
    show(f"temperature {fitted.temperature:.4g}, fitted on {images}")
    show(f"negative log-likelihood {fitted.nll[0]:.4f} before, {fitted.nll[1]:.4f} after")
    show(f"expected calibration error {fitted.ece[0]:.4f} before, {fitted.ece[1]:.4f} after")
    if fitted.images < FEW_IMAGES:
        show_error(
            f"warning: fitted on {images}; with fewer than {FEW_IMAGES} a temperature is mostly "
            "chance",
            style="yellow",
        )


def _tested(trained: Trained, epoch: int | None, temperature: float) -> Scaled:
    """The fit on the test images, which neither trained the network nor chose the temperature."""
    outputs = split_outputs(trained.run, TEST, epoch)
    # Without a prior, because that of the command line is of other images.
    found = scaled(outputs.logits, outputs.labels, temperature, split=TEST, title="test images")
    show(f"on {len(outputs.labels):,} test images:")
    show(f"  negative log-likelihood {found.before.nll:.4f} before, {found.after.nll:.4f} after")
    show(f"  expected calibration error {found.before.ece:.4f} before, {found.after.ece:.4f} after")
    return found


def _given(classifier: Classifier, images: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
    """Logits and labels of the images on the command line whose class is known.

    Those that cannot be read are named and left out; their number is returned, too.
    """
    trained = classifier.trained
    listed, faults = list_images(images, trained.class_names, trained.lists, trained.lists_root)
    known = [each for each in listed if each.label]
    logits, rows, more = classifier.readable_logits([each.image for each in known])
    for row, fault in more.items():
        # The message about a file names it already.
        path = isinstance(known[row].image, str | Path)
        faults.append(fault if path else f"{known[row].path}: {fault}")
    for fault in faults:
        show_error(fault, style="yellow")
    if not listed:
        raise DataError("there is no image to fit a temperature on")
    if not known:
        raise DataError("no image lies in a folder named after a class, or has a label")
    if not len(rows):
        raise DataError("no image of a known class could be read")
    labels = classifier.label_numbers([known[row].label for row in rows], len(rows))
    return logits, labels, len(faults)


def _validation(trained: Trained, epoch: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of the validation images of the run."""
    if why := unmeasured(trained.run):
        raise ConfigError(
            f"{trained.run.path} has no images to fit a temperature on. {why} Labelled images that "
            "did not train it may be named on the command line"
        )
    if not has_split(trained.run, VAL):
        raise ConfigError(
            f"{trained.run.path} was trained without validation images (data.val_fraction); name "
            "labelled images on the command line"
        )
    outputs = split_outputs(trained.run, VAL, epoch)
    return outputs.logits, outputs.labels


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
