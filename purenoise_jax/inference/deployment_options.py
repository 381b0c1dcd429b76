"""Command-line options about the images to classify, shared by the programs that use a network."""

import argparse


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
