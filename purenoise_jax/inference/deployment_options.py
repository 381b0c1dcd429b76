"""Command-line options that the programs share which use a network."""

import argparse

from purenoise_jax.inference.trained import BEST_EPOCH


def add_epoch(parse: argparse.ArgumentParser) -> None:
    """Adds the option that chooses a checkpoint."""
    parse.add_argument(
        "--epoch",
        type=_epoch,
        help=f"completed epochs, or {BEST_EPOCH}, those of the best on validation images "
        "by checkpoint.best; default: newest checkpoint",
    )


def _epoch(text: str) -> int | str:
    if text == BEST_EPOCH:
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not legal; legal: a number of epochs, or {BEST_EPOCH}"
        ) from None


def add_deployment(parse: argparse.ArgumentParser) -> None:
    """Adds the options about the images to classify that differ from training."""
    parse.add_argument(
        "--prior",
        metavar="PRIOR",
        help="share of each class among the images to classify: uniform; train, as in the training "
        "images; or a CSV file of lines class,number; default: not known",
    )
    parse.add_argument(
        "--costs",
        metavar="FILE",
        help="CSV file with the cost of each predicted class (columns) for each true class (rows); "
        "the class with the least expected cost is predicted",
    )
    parse.add_argument(
        "--temperature",
        default="1",
        metavar="T",
        help="by which logits are divided: a number, or fitted, the one that python -m "
        "purenoise_jax.calibrate has fitted for RUN",
    )
