"""Training ratio against test ratio: XGBoost on Adult, SVM on Forest Cover, other tables.

    python -m launch.reproduce tabular --csv FILE --label COLUMN [--model svm] [--tier mini]

Classifiers are fitted to training sets of one size with different shares of two classes. Each is
evaluated under every test ratio: accuracy is the mean of the accuracies of the two classes,
weighted by their shares among the test rows.

Source: Shwartz-Ziv et al. 2023 ("Simplifying Neural Network Training Under Class Imbalance"),
appendix A.8.1, figures 12, 13, 21 and 22.

READING: the size of the training set is that of the authors' code for images, 5,000, or the largest
that the file admits at every ratio. Half of the rows of each class are test rows, another half for
each seed. If there are more than two classes, the two most frequent are used.

A ratio is the number of rows of the rarer class over that of the other. `ratios.py` has the grid of
ratios, the readings of it, and the evaluation at a test ratio.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table as Grid

from purenoise_jax.analysis.figure_style import Drawing, literal, save, styled
from purenoise_jax.runtime.console import SafeConsole, duration
from purenoise_jax.runtime.errors import ConfigError, counted
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.files import write_atomically
from purenoise_jax.runtime.paths import expand
from purenoise_jax.training.provenance import versions

from .classifiers import MODELS, fit, package_version
from .csv_rows import TwoClasses, read_two_classes
from .ratios import (
    BEST,
    MINI_NUMBER,
    NUMBER,
    Study,
    accuracy_at,
    counts_of,
    draw_best,
    draw_policies,
    grid,
    misalignment,
    numbers_of,
    policies,
)
from .two_classes import standard_errors

NAME = "tabular"
GRID, SEEDS = {"full": NUMBER, "mini": MINI_NUMBER}, {"full": 5, "mini": 3}
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


def plan_counts(pool: Sequence[int], number: int, most: int) -> np.ndarray:
    """Chooses the rows of the training sets, all of one size.

    Args:
        pool: rows of both classes that there are to train on.
        number: of ratios in the grid.
        most: the largest size.

    Returns:
        int[T, 2], rows of both classes by rising ratio. Ratios that no whole numbers of rows tell
        apart are one set.

    Raises:
        ConfigError: fewer than two sets are left.
    """
    ratios = grid(number)
    total = int(min(most, *np.array(pool) * (1 + ratios[[0, -1]]) / (1, ratios[-1])))
    # The set with a ratio of 1 has equal shares.
    total -= total % 2
    # Sorted by the rows of the frequent class, of which the lowest ratio has most.
    counts = np.unique([counts_of(ratio, max(total, 2)) for ratio in ratios], axis=0)[::-1]
    if total < 2 or len(counts) < 2:
        raise ConfigError(
            f"the classes have {pool[0]} and {pool[1]} rows to train on, too few for two ratios"
        )
    return counts


def fitted_accuracies(model: str, rows: TwoClasses, counts: np.ndarray, seed: int) -> np.ndarray:
    """Fits a classifier to every training set of a seed, and tests it on the other half.

    The training sets of a seed share their rows as far as their sizes allow.

    Args:
        model: one of `MODELS`.
        rows: the table.
        counts: int[T, 2], training rows of both classes.
        seed: of the halves and of the classifier.

    Returns:
        f64[T, 2], test accuracy of each class.
    """
    rng = np.random.default_rng(seed)
    pools, tests = [], []
    for label in (0, 1):
        order = rng.permutation(np.flatnonzero(rows.labels == label))
        half = len(order) // 2
        tests.append(order[:half][:TEST_ROWS])
        pools.append(order[half:])
    found = []
    for each in counts:
        chosen = np.concatenate([pool[:n] for pool, n in zip(pools, each, strict=True)])
        predict = fit(model, rows, chosen, seed)
        found.append([np.mean(predict(rows.features[t]) == c) for c, t in enumerate(tests)])
    return np.array(found)


def study_of(counts: np.ndarray, found: np.ndarray) -> Study:
    """The accuracy of every training ratio at every test ratio.

    Args:
        counts: int[T, 2], training rows of both classes.
        found: f64[S, T, 2], from `fitted_accuracies`.
    """
    accuracy = accuracy_at(found, counts[:, 1] / counts[:, 0])
    errors = np.array([standard_errors(of_ratio) for of_ratio in accuracy.swapaxes(0, 1)])
    return Study(int(counts[0].sum()), counts, accuracy.mean(axis=0), errors)


def draw(title: str, study: Study) -> Figure:
    """Draws accuracy against the test ratio, and the best training ratio of each test ratio."""
    with styled():
        figure = Figure(figsize=(8.2, 3.4))
        left, right = figure.subplots(1, 2)
        draw_policies(left, study, "rows")
        draw_best(right, [study], "rows")
        figure.suptitle(literal(title), fontsize=10)
    return figure


def as_markdown(title: str, study: Study) -> str:
    """The numbers of a study as a table in Markdown."""
    head = _head(study)
    gaps = misalignment(study)
    lines = [
        f"# {title}",
        "",
        "Test accuracy in percent, mean ± standard error over seeds, by training ratio.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---:|' * len(head)}",
        *(f"| {' | '.join(cells)} |" for cells in _cells(study)),
        "",
        _misalignment_line(gaps),
        "",
    ]
    return "\n".join(lines)


def _head(study: Study) -> list[str]:
    return ["test ratio", "best training ratio", *policies(study)]


def _cells(study: Study) -> list[list[str]]:
    columns = np.arange(len(study.counts))
    chosen = policies(study)
    shown = [
        [_percent(study.accuracy[place, c], study.error[place, c])
         for place, c in zip(places, columns, strict=True)]
        for places in chosen.values()
    ]  # fmt: skip
    best = study.ratios[chosen[BEST]]
    ratios = [[f"{ratio:.3g}" for ratio in each] for each in (study.ratios, best)]
    return [list(row) for row in zip(*ratios, *shown, strict=True)]


def _percent(mean: float, error: float) -> str:
    shown = f"{100 * mean:.1f}"
    return shown if np.isnan(error) else f"{shown} ± {100 * error:.1f}"


def _misalignment_line(gaps: Mapping[str, float]) -> str:
    return (
        f"Misalignment: {gaps['powers_of_ten']:.2f} powers of ten, "
        f"{100 * gaps['accuracy']:.1f} points of accuracy."
    )


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
    sizes = np.bincount(rows.labels, minlength=2)
    number = GRID[args.tier]
    counts = plan_counts((sizes - sizes // 2).tolist(), number, args.rows)
    title = f"{MODELS[args.model]} on {path.name}, {counts[0].sum():,} training rows"
    console.print(title)
    for name, count in zip(rows.names, sizes, strict=True):
        console.print(f"class {name}: {counted(count, 'row')}")
    if rows.left_out:
        console.print(
            f"{counted(rows.left_out, 'row')} of other classes or without a label left out"
        )
    if len(counts) < number:
        console.print(f"{len(counts)} of {number} ratios, because so few rows have no others")
    if args.dry_run:
        for frequent, rare in counts:
            console.print(f"ratio {rare / frequent:<8.3g}{frequent:,} + {rare:,} training rows")
        console.print(f"{counted(seeds, 'seed')}, {counted(seeds * len(counts), 'classifier')}")
        return 0
    found, began = [], time.monotonic()
    for seed in range(seeds):
        found.append(fitted_accuracies(args.model, rows, counts, seed))
        console.print(f"seed {seed}: {duration(time.monotonic() - began)}")
    study = study_of(counts, np.array(found))
    grid_shown = Grid(*_head(study), title=title, box=box.SIMPLE)
    for cells in _cells(study):
        grid_shown.add_row(*cells)
    console.print(grid_shown)
    console.print(_misalignment_line(misalignment(study)))
    folder = expand(args.out, "--out") / ("mini" if args.tier == "mini" else "") / "tables"
    name = f"{NAME}_{path.stem}_{args.model}"
    numbers = {
        "title": title,
        "classes": list(rows.names),
        "rows": sizes.tolist(),
        "file": {"name": path.name, "sha256": rows.sha256},
        "seeds": seeds,
        "versions": {**versions(), **package_version(args.model)},
        "class_accuracy": np.array(found).round(5).tolist(),
        **numbers_of(study),
    }
    written = save(Drawing(draw(title, study), numbers), folder, name)
    write_atomically(folder / f"{name}.md", as_markdown(title, study).encode())
    for file in (*written, folder / f"{name}.md"):
        console.print(str(file))
    return 0


def _show_missing(console: SafeConsole) -> None:
    console.print("training ratio against test ratio")
    for title, arguments in PUBLISHED:
        console.print(f"  {title:<22}missing: needs {arguments}")
    console.print("any other table with a column of classes: --csv FILE --label COLUMN; see --help")
