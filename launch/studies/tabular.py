"""Training ratio against test ratio: XGBoost on Adult, SVM on Forest Cover, other tables.

    python -m launch.reproduce tabular --csv FILE --label COLUMN [--model svm] [--tier mini]

Classifiers are fitted to training sets of one size with different shares of two classes. Each is
evaluated under every test ratio: accuracy is the mean of the accuracies of the two classes,
weighted by their shares among the test rows.

Source: Shwartz-Ziv et al. 2023 ("Simplifying Neural Network Training Under Class Imbalance"),
appendix A.8.1, figures 12, 13, 21 and 22.

READING: the size of the training set is that of the authors' code for images, 5,000, or the largest
that the file admits at every ratio. Half of the rows of each class are test rows, another half for
each seed. Of more than two classes the two most frequent are used.
READING: the best training ratio of a test ratio is that with the largest mean accuracy over seeds,
and of several the nearest to the test ratio. Misalignment is the mean over test ratios of the
distance of both in powers of ten.
"""

import argparse
import importlib
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table as Grid

from purenoise_jax.analysis.figure_style import Drawing, literal, save, styled
from purenoise_jax.runtime.console import SafeConsole, duration
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.files import write_atomically
from purenoise_jax.runtime.paths import expand

from .classifiers import MODELS, fit
from .csv_rows import TwoClasses, read_two_classes

NAME = "tabular"
# Ratio = rows of the rarer class to one of the other.
LOWEST, HIGHEST = 10**-2.5, 10**0.43
GRID, SEEDS = {"full": 25, "mini": 9}, {"full": 5, "mini": 3}
TOTAL, TEST_ROWS = 5000, 10_000
# The published figures, and the file that each needs.
PUBLISHED = (
    ("XGBoost on Adult", "--csv adult.data --no-header --label 15"),
    ("SVM on Forest Cover", "--csv covtype.data --no-header --label 55 --model svm"),
)


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    needed = "\n".join(f"  {title:<22}{arguments}" for title, arguments in PUBLISHED)
    parse = Parser(
        prog=f"python -m launch.reproduce {NAME}",
        description="Accuracy of XGBoost or an SVM under every test ratio of two classes, trained "
        "at every ratio. Reads a file of yours; without one it says what is missing.",
        epilog=f"published, with the files of the UCI repository:\n{needed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("--csv", default="", metavar="FILE", help="comma-separated values")
    parse.add_argument("--label", default="", metavar="COLUMN", help="column with the class")
    parse.add_argument(
        "--no-header", action="store_true", help="the first line is a row; columns are 1, 2, ..."
    )
    parse.add_argument(
        "--classes", default="", metavar="A,B", help="two labels; default: the most frequent two"
    )
    parse.add_argument(
        "--drop", action="append", default=[], metavar="COLUMN", help="a column to leave out"
    )
    parse.add_argument("--model", choices=tuple(MODELS), default="xgboost")
    parse.add_argument(
        "--tier",
        choices=tuple(GRID),
        default="full",
        help="full: 25 ratios and 5 seeds; mini: 9 ratios and 3 seeds",
    )
    parse.add_argument("--seeds", type=int, help="splits into training and test rows")
    parse.add_argument("--rows", type=int, default=TOTAL, help="rows of a training set, at most")
    parse.add_argument("--out", default="runs/reproduce", help="folder of the table and figure")
    parse.add_argument("--dry-run", action="store_true", help="only list the training sets")
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


class Sets(NamedTuple):
    """The training sets of a study.

    Attributes:
        ratios: f64[T], those of the grid that leave each class a row.
        counts: i64[T, 2], rows of both classes.
        balanced: i64[2], rows of the set with equal shares.
    """

    ratios: np.ndarray
    counts: np.ndarray
    balanced: np.ndarray


def plan_sets(pool: Sequence[int], grid: int, most: int) -> Sets:
    """Chooses the rows of the training sets, all of one size.

    Args:
        pool: rows of both classes that there are to train on.
        grid: number of ratios, evenly spaced in their logarithm.
        most: the largest size.

    Raises:
        ConfigError: fewer than two ratios leave each class a row.
    """
    ratios = np.logspace(math.log10(LOWEST), math.log10(HIGHEST), grid)
    total = int(min(most, pool[0] * (1 + LOWEST), pool[1] * (1 + HIGHEST) / HIGHEST))
    rare = np.minimum(np.round(total * ratios / (1 + ratios)).astype(int), pool[1])
    counts = np.stack([np.minimum(total - rare, pool[0]), rare], axis=1)
    kept = (counts > 0).all(axis=1)
    if kept.sum() < 2 or total < 2:
        raise ConfigError(f"{total} training rows are too few for two ratios")
    return Sets(ratios[kept], counts[kept], np.array([total - total // 2, total // 2]))


def accuracy_at(recalls: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """The accuracy under other shares of the classes.

    Args:
        recalls: f64[..., 2], accuracy of each class.
        ratios: f64[R], images of the second class to one of the first.

    Returns:
        f64[..., R].
    """
    return (recalls[..., :1] + ratios * recalls[..., 1:]) / (1 + ratios)


def best_ratios(accuracy: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The place of the best training ratio for each test ratio.

    Args:
        accuracy: f64[T, R], mean over seeds.
        train: f64[T], training ratios.
        test: f64[R], test ratios.

    Returns:
        i64[R]; of several that are equal the nearest to the test ratio.
    """
    distance = np.abs(np.log10(train)[:, None] - np.log10(test))
    is_best = accuracy >= accuracy.max(axis=0) - 1e-12
    return np.where(is_best, distance, np.inf).argmin(axis=0)


def recalls_of_seed(model: str, rows: TwoClasses, sets: Sets, seed: int) -> np.ndarray:
    """Fits a classifier to every training set of a seed, and tests it on the other half.

    The training sets of a seed share their rows as far as their sizes allow.

    Returns:
        f64[T + 1, 2], test accuracy of each class; the last is that of the balanced set.
    """
    rng = np.random.default_rng(seed)
    pools, tests = [], []
    for label in (0, 1):
        order = rng.permutation(np.flatnonzero(rows.labels == label))
        half = len(order) // 2
        tests.append(order[:half][:TEST_ROWS])
        pools.append(order[half:])
    found = []
    for counts in [*sets.counts, sets.balanced]:
        chosen = np.concatenate([pool[:count] for pool, count in zip(pools, counts, strict=True)])
        predict = fit(model, rows, chosen, seed)
        found.append([np.mean(predict(rows.features[t]) == c) for c, t in enumerate(tests)])
    return np.array(found)


def summarize(sets: Sets, recalls: np.ndarray) -> dict[str, Any]:
    """The numbers of the figure.

    Args:
        sets: the training sets.
        recalls: f64[S, T + 1, 2], from `recalls_of_seed`.

    Returns:
        JSON values. Accuracies are means over seeds in [0, 1], each with its standard error, None
        with one seed.
    """
    ratios = sets.ratios
    accuracy = accuracy_at(recalls, ratios)
    best = best_ratios(accuracy[:, :-1].mean(axis=0), ratios, ratios)
    columns = np.arange(len(ratios))
    scenarios = {
        "best": accuracy[:, best, columns],
        "same": accuracy[:, columns, columns],
        "balanced": accuracy[:, -1],
    }
    seeds = len(recalls)

    def error(values: np.ndarray) -> list[float] | None:
        return (values.std(axis=0, ddof=1) / math.sqrt(seeds)).tolist() if seeds > 1 else None

    return {
        "ratios": ratios.tolist(),
        "training_rows": sets.counts.tolist(),
        "best_training_ratio": ratios[best].tolist(),
        "misalignment": float(np.abs(np.log10(ratios[best] / ratios)).mean()),
        **{f"accuracy_{name}": values.mean(axis=0).tolist() for name, values in scenarios.items()},
        **{f"error_{name}": error(values) for name, values in scenarios.items()},
        "class_accuracy": recalls.tolist(),
    }


LABELS = {
    "best": "best training ratio",
    "same": "training ratio = test ratio",
    "balanced": "balanced training",
}


def draw(title: str, numbers: dict[str, Any]) -> Drawing:
    """Draws accuracy against the test ratio, and the best training ratio of each test ratio."""
    with styled():
        figure = Figure(figsize=(8, 3.4))
        left, right = figure.subplots(1, 2)
        ratios = numbers["ratios"]
        for (name, label), marker in zip(LABELS.items(), "o^s", strict=True):
            mean = 100 * np.array(numbers[f"accuracy_{name}"])
            error = numbers[f"error_{name}"]
            left.errorbar(
                ratios,
                mean,
                yerr=None if error is None else 100 * np.array(error),
                label=label,
                marker=marker,
                markersize=3,
                linewidth=1.2,
            )
        left.set(xscale="log", xlabel="test ratio", ylabel="test accuracy, %")
        left.legend()
        right.plot([LOWEST, HIGHEST], [LOWEST, HIGHEST], color="#999999", label="equal")
        right.plot(ratios, numbers["best_training_ratio"], "o", label="best")
        right.set(xscale="log", yscale="log", xlabel="test ratio", ylabel="best training ratio")
        right.legend()
        figure.suptitle(literal(title), fontsize=10)
    return Drawing(figure, numbers)


def as_markdown(title: str, numbers: dict[str, Any]) -> str:
    """The numbers as a table in Markdown."""
    lines = [
        f"# {title}",
        "",
        "Test accuracy in percent, mean ± standard error over seeds.",
        "",
        f"| test ratio | best training ratio | {' | '.join(LABELS.values())} |",
        f"|---:|---:|{'---:|' * len(LABELS)}",
    ]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(numbers)]
    return "\n".join(
        [*lines, "", f"Misalignment: {numbers['misalignment']:.2f} powers of ten.", ""]
    )


def _cells(numbers: dict[str, Any]) -> list[list[str]]:
    rows = []
    for place, ratio in enumerate(numbers["ratios"]):
        cells = [f"{ratio:.3g}", f"{numbers['best_training_ratio'][place]:.3g}"]
        for name in LABELS:
            text = f"{100 * numbers[f'accuracy_{name}'][place]:.1f}"
            error = numbers[f"error_{name}"]
            cells.append(text if error is None else f"{text} ± {100 * error[place]:.1f}")
        rows.append(cells)
    return rows


def main(argv: Sequence[str]) -> int:
    """Runs one command line, without the name of the study, and returns its exit code."""
    return run_command(
        partial(_study, argv), debug="--debug" in argv, interrupted="interrupted; nothing is kept"
    )


def _study(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    console = SafeConsole(soft_wrap=True)
    seeds = SEEDS[args.tier] if args.seeds is None else args.seeds
    if seeds < 1 or args.rows < 2:
        raise ConfigError("--seeds must be at least 1, and --rows at least 2")
    if not args.csv:
        _show_missing(console)
        return 0
    if not args.label:
        raise ConfigError("--label=COLUMN is missing: the column that has the class")
    path = expand(args.csv, "--csv")
    classes = [name.strip() for name in args.classes.split(",")] if args.classes else []
    if len(classes) not in (0, 2):
        raise ConfigError(f"--classes={args.classes} must name two classes, as A,B")
    rows = read_two_classes(
        path, args.label, header=not args.no_header, classes=classes, drop=args.drop
    )
    images = np.bincount(rows.labels, minlength=2)
    sets = plan_sets((images - images // 2).tolist(), GRID[args.tier], args.rows)
    title = f"{MODELS[args.model]} on {path.name}, {sets.balanced.sum():,} training rows"
    console.print(title)
    for name, count in zip(rows.names, images, strict=True):
        console.print(f"class {name}: {count:,} rows")
    if rows.left_out:
        console.print(f"{rows.left_out:,} rows of other classes or without a label are left out")
    if len(sets.ratios) < GRID[args.tier]:
        console.print(f"ratios below {sets.ratios[0]:.3g} are left out: less than one row")
    if args.dry_run:
        for ratio, (frequent, rare) in zip(sets.ratios, sets.counts, strict=True):
            console.print(f"ratio {ratio:<8.3g}{frequent:,} and {rare:,} training rows")
        console.print(f"{seeds} seeds, {seeds * (len(sets.ratios) + 1)} classifiers")
        return 0
    recalls, began = [], time.monotonic()
    for seed in range(seeds):
        recalls.append(recalls_of_seed(args.model, rows, sets, seed))
        console.print(f"seed {seed}: {duration(time.monotonic() - began)}")
    numbers = {
        "title": title,
        "model": args.model,
        "file": path.name,
        "sha256": rows.sha256,
        "classes": list(rows.names),
        "rows": images.tolist(),
        "seeds": seeds,
        "tier": args.tier,
        "versions": _versions(args.model),
        **summarize(sets, np.array(recalls)),
    }
    grid = Grid("test ratio", "best training ratio", *LABELS.values(), title=title, box=box.SIMPLE)
    for cells in _cells(numbers):
        grid.add_row(*cells)
    console.print(grid)
    console.print(f"misalignment: {numbers['misalignment']:.2f} powers of ten")
    folder = expand(args.out, "--out") / ("mini" if args.tier == "mini" else "") / "tables"
    name = f"{NAME}_{path.stem}_{args.model}"
    written = save(draw(title, numbers), folder, name)
    write_atomically(folder / f"{name}.md", as_markdown(title, numbers).encode())
    for file in (*written, folder / f"{name}.md"):
        console.print(str(file))
    return 0


def _show_missing(console: SafeConsole) -> None:
    grid = Grid("figure", "numbers", title="training ratio against test ratio", box=box.SIMPLE)
    for title, arguments in PUBLISHED:
        grid.add_row(title, f"missing: needs {arguments}")
    console.print(grid)
    console.print("any other table with a column of classes: --csv FILE --label COLUMN; see --help")


def _versions(model: str) -> dict[str, str]:
    package = {"xgboost": "xgboost", "svm": "sklearn"}[model]
    return {"numpy": np.__version__, package: importlib.import_module(package).__version__}
