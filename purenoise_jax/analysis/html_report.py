"""The report of one or several runs: one HTML file without scripts or external links."""

import base64
import collections
import dataclasses
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from purenoise_jax.analysis import (
    class_accuracy,
    confusion,
    curves,
    groups,
    images,
    reliability,
    run_tables,
)
from purenoise_jax.analysis.figure_style import Draw, Options, styled
from purenoise_jax.analysis.latest_evaluation import Evaluation, latest_evaluation
from purenoise_jax.analysis.seeds import group_rows, hash_without_seed
from purenoise_jax.inference.runs import Run, load_finished
from purenoise_jax.inference.unmeasured import unmeasured
from purenoise_jax.runtime.console import SPLITS
from purenoise_jax.runtime.errors import ConfigError, PureNoiseError
from purenoise_jax.runtime.files import write_atomically
from purenoise_jax.training import probabilities
from purenoise_jax.training.experiment import Experiment
from purenoise_jax.training.records import norm_line

NAME = "report.html"
TEMPLATE = "report.html.j2"
MANY_CLASSES = 20  # with more classes, their table is folded
WIDE = 700  # wider figures, in CSS pixels, have a row of their own


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure inside the report.

    Attributes:
        title: heading above it.
        uri: data URI, or "" if it could not be drawn.
        text: description, or the reason why it could not be drawn.
        wide: True if it has a row of its own.
        width: largest width, in CSS pixels.
        narrow: data URI of another layout for a narrow screen, or "".
    """

    title: str
    uri: str
    text: str
    wide: bool = False
    width: int = 0
    narrow: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """The part of the report about one run."""

    label: str
    split: str
    subtitle: str
    warning: str
    headline: list[run_tables.Row]
    pictures: list[Picture]
    classes: list[tuple[str, list[run_tables.ClassRow]]]
    folded: bool
    accuracies: list[run_tables.Row]
    shots: list[run_tables.Row]
    shifted: list[run_tables.Row]
    calibration: list[run_tables.Row]
    probabilities: str
    phases: list[run_tables.Row]
    changed: list[run_tables.Row]
    rest: list[run_tables.Row]
    data: list[run_tables.Row]
    provenance: list[run_tables.Row]


def write_report(runs: Sequence[Run], folder: Path | None = None) -> Path:
    """Writes report.html.

    Args:
        runs: at least one; with several, they are compared first.
        folder: created if it does not exist; None = the workdir of a single run, or `figures` in
            the workdir of the first of several.

    Returns:
        The path of the file.
    """
    folder = folder or (runs[0].path if len(runs) == 1 else runs[0].path / "figures")
    text = render(runs)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / NAME, text)
    return folder / NAME


def report_finished(workdir: Path, experiment: Experiment) -> Path:
    """Writes the report of a run that has just ended, without reading its data again."""
    return write_report([load_finished(workdir, experiment)])


def render(runs: Sequence[Run]) -> str:
    """Renders the report as HTML; a figure that cannot be drawn is replaced by the reason.

    Raises:
        DataError: neither the checkpoints nor the data of an unfinished run can be read.
    """
    evaluations = [_evaluation_of(run) for run in runs]
    several = len(runs) > 1
    names = " and ".join(run.label for run in runs) if len(runs) < 4 else f"{len(runs)} runs"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("purenoise_jax.analysis").joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(source).render(
        title=names,
        several=several,
        split=" or ".join(sorted({SPLITS[run.shown] for run in runs})),
        notes=_notes(runs, evaluations),
        table=[
            (run.label, _headline(run, evaluation), evaluation)
            for run, evaluation in zip(runs, evaluations, strict=True)
        ],
        by_config=group_rows(runs, evaluations),
        differing=run_tables.differing_fields(runs) if several else [],
        labels=[run.label for run in runs],
        shared=_pictures(runs, [*_SHARED]) if several else [],
        sections=[
            _section(run, evaluation, several)
            for run, evaluation in zip(runs, evaluations, strict=True)
        ],
    )


# Title -> function that draws the figure, whether it is wide, description.
_SHARED = {
    "Accuracy of classes by frequency": (groups.draw, False, "the five groups of classes"),
    "Accuracy and class size": (class_accuracy.draw, False, "each class against its size"),
    "Training": (curves.draw, True, "loss, accuracy and learning rate by epoch"),
}
_OWN = {
    "Images of a training step": (images.draw, True, "a training batch and its noise images"),
    "Confusion matrix": (confusion.draw, False, "shares of each true class by predicted class"),
    "Reliability of the probabilities": (
        reliability.draw_recorded,
        False,
        "accuracy by probability of the predicted class",
    ),
}
# Layout of a wide figure for a narrow screen.
_NARROW: dict[Draw, Draw] = {
    curves.draw: curves.draw_stacked,
    reliability.draw_recorded: reliability.draw_stacked,
}


def _pictures(runs: Sequence[Run], titles: Sequence[str]) -> list[Picture]:
    known = {**_SHARED, **_OWN}
    return [_picture(title, runs, *known[title]) for title in titles]


def _picture(title: str, runs: Sequence[Run], draw: Draw, wide: bool, text: str) -> Picture:
    # SVG scales to any width; a sheet of photographs gains nothing from it.
    pixels = draw is images.draw
    if draw is not curves.draw and len(runs) > 1:
        # A comparison leaves out runs without an evaluation; their own sections give the reason.
        runs = [run for run in runs if _evaluation_of(run) is not None] or runs
    try:
        figure = draw(runs, Options()).figure
    except PureNoiseError as error:
        return Picture(title, "", f"Not drawn: {error}.")
    width = round(100 * figure.get_figwidth())
    wide, narrow = wide or width > WIDE, ""
    if wide and draw in _NARROW:
        narrow = _uri(_NARROW[draw](runs, Options()).figure, pixels=False)
    return Picture(title, _uri(figure, pixels), text, wide, width, narrow)


def _uri(figure: Figure, pixels: bool) -> str:
    """The figure as a data URI: a PNG image if `pixels`, otherwise SVG."""
    buffer = io.BytesIO()
    with styled(), mpl.rc_context({"svg.hashsalt": "purenoise_jax"}):
        if pixels:
            figure.savefig(buffer, format="png", dpi=130)
        else:
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    kind = "png" if pixels else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _section(run: Run, evaluation: Evaluation | None, several: bool) -> Section:
    config = run.config
    norm = norm_line(config.model.norm, config.model.noise_grad)
    methods = ", then ".join(row.text for row in run_tables.phase_rows(run))
    subtitle = (
        f"{config.model.name}, {norm}; {methods}; {config.num_epochs} epochs; seed {config.seed}"
    )
    date = run_tables.date_of(run)
    subtitle += f"; {date}" if date else ""
    warning = ""
    if evaluation is None:
        warning = unmeasured(run) or "This run has no evaluation yet."
    elif not evaluation.finished:
        warning = (
            "This run is not finished: the numbers come from its newest evaluation, after epoch "
            f"{evaluation.epoch:g} of {config.num_epochs}."
        )
    changed, rest = run_tables.config_rows(run)
    classes = run_tables.class_tables(evaluation) if evaluation else []
    count = len(evaluation.class_counts) if evaluation else 0
    return Section(
        label=run.label,
        split=SPLITS[run.shown],
        subtitle=subtitle,
        warning=warning,
        headline=[*_headline(run, evaluation), *run_tables.other_rows(evaluation)],
        pictures=_pictures([run], [*_OWN] if several else [*_SHARED, *_OWN]),
        classes=classes,
        folded=MANY_CLASSES < count <= run_tables.ALL,
        accuracies=(
            run_tables.accuracy_rows(evaluation) if evaluation and count > MANY_CLASSES else []
        ),
        shots=run_tables.shot_rows(evaluation) if evaluation else [],
        shifted=run_tables.shifted_rows(evaluation) if evaluation else [],
        calibration=run_tables.calibration_rows(evaluation) if evaluation else [],
        probabilities=probabilities.FILES[run.shown],
        phases=run_tables.phase_rows(run),
        changed=changed,
        rest=rest,
        data=run_tables.data_rows(run, evaluation),
        provenance=run_tables.provenance(run),
    )


def _headline(run: Run, evaluation: Evaluation | None) -> list[run_tables.Row]:
    why = "no images to measure with" if unmeasured(run) else "not evaluated yet"
    return run_tables.headline(evaluation, why)


def _evaluation_of(run: Run) -> Evaluation | None:
    try:
        return latest_evaluation(run)
    except ConfigError:
        return None


def _notes(runs: Sequence[Run], evaluations: Sequence[Evaluation | None]) -> list[str]:
    """Returns the limits of a comparison: different data, unfinished runs, number of seeds."""
    notes = []
    for name in ("dataset_fingerprint", "dataset_content"):
        if len({run.recorded[name] for run in runs if run.recorded.get(name)}) > 1:
            notes.append("These runs were not trained on the same images: see their fingerprints.")
            break
    for run, evaluation in zip(runs, evaluations, strict=True):
        if evaluation is None:
            why = unmeasured(run)
            notes.append(f"{run.label}: {why}" if why else f"{run.label} has no evaluation yet.")
        elif not evaluation.finished:
            notes.append(f"{run.label} is not finished: its numbers come from epoch "
                         f"{evaluation.epoch:g} of {run.config.num_epochs}.")  # fmt: skip
    if len(runs) > 1:
        notes.append(_seeds_note(runs))
    return notes


def _seeds_note(runs: Sequence[Run]) -> str:
    """Returns a sentence on the number of seeds of each config."""
    seeds: dict[str, set[int]] = collections.defaultdict(set)
    for run in runs:
        seeds[hash_without_seed(run)].add(run.config.seed)
    fewest, most = min(map(len, seeds.values())), max(map(len, seeds.values()))
    if most == 1:
        return "One seed per config: small differences may be due to chance."
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    if len(seeds) == 1:
        return f"One config with {number} seeds: differences between these runs are due to chance."
    return (
        f"{len(seeds)} configs, {number} seeds each: differences between "
        "configs that are no larger than those between seeds may be due to chance."
    )
