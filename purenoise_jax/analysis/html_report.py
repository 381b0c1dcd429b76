"""The report: all that a run, or several, came to, in one HTML file without scripts or links."""

import base64
import collections
import dataclasses
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, StrictUndefined
from ml_collections import ConfigDict

from purenoise_jax.analysis import class_accuracy, confusion, curves, groups, images, run_tables
from purenoise_jax.analysis.figure_style import Draw, Options, styled
from purenoise_jax.analysis.latest_evaluation import Evaluation, latest_evaluation
from purenoise_jax.config.fields import config_hash
from purenoise_jax.inference.runs import Run, load_finished
from purenoise_jax.runtime.errors import ConfigError, PureNoiseError
from purenoise_jax.runtime.files import write_atomically
from purenoise_jax.training.experiment import Experiment

NAME = "report.html"
TEMPLATE = "report.html.j2"
MANY_CLASSES = 20  # beyond so many, their table is folded and their confusion matrix is pixels


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure inside the report.

    Attributes:
        title: above it.
        uri: its data, or "" where it could not be drawn.
        text: what it shows, or why it is not there.
        wide: too wide for a narrow screen, where it is scrolled instead of shrunk.
        width: at most, in CSS pixels.
    """

    title: str
    uri: str
    text: str
    wide: bool = False
    width: int = 0


@dataclasses.dataclass(frozen=True)
class Section:
    """All that is said of one run."""

    label: str
    subtitle: str
    warning: str
    headline: list[run_tables.Row]
    pictures: list[Picture]
    classes: list[run_tables.ClassRow]
    folded: bool
    shots: list[run_tables.Row]
    phases: list[run_tables.Row]
    changed: list[run_tables.Row]
    rest: list[run_tables.Row]
    data: list[run_tables.Row]
    provenance: list[run_tables.Row]


def write_report(runs: Sequence[Run], folder: Path | None = None) -> Path:
    """Writes report.html.

    Args:
        runs: at least one; with several, they are compared first.
        folder: made if it is not there; None = the workdir of a single run, or `figures` in that of
            the first of several.

    Returns:
        The path of the file.
    """
    folder = folder or (runs[0].path if len(runs) == 1 else runs[0].path / "figures")
    text = render(runs)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / NAME, text)
    return folder / NAME


def report_finished(workdir: Path, experiment: Experiment) -> Path:
    """Writes the report of a run that has just ended, from what it was run with."""
    return write_report([load_finished(workdir, experiment)])


def render(runs: Sequence[Run]) -> str:
    """The report as HTML; a figure that cannot be drawn is replaced by the reason.

    Raises:
        DataError: of an unfinished run neither checkpoints nor data can be read.
    """
    results = [_outcome(run) for run in runs]
    several = len(runs) > 1
    names = " and ".join(run.label for run in runs) if len(runs) < 4 else f"{len(runs)} runs"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("purenoise_jax.analysis").joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(source).render(
        title=names,
        several=several,
        notes=_notes(runs, results),
        table=[
            (run.label, run_tables.headline(result), result)
            for run, result in zip(runs, results, strict=True)
        ],
        differing=run_tables.differing_fields(runs) if several else [],
        labels=[run.label for run in runs],
        shared=_pictures(runs, [*_SHARED]) if several else [],
        sections=[
            _section(run, result, several) for run, result in zip(runs, results, strict=True)
        ],
    )


# Title, how it is drawn, whether it is wide, what it shows.
_SHARED = {
    "Accuracy of classes by frequency": (groups.draw, False, "the five groups of classes"),
    "Accuracy and class size": (class_accuracy.draw, False, "each class against its size"),
    "Training": (curves.draw, True, "loss, test accuracy and learning rate by epoch"),
}
_OWN = {
    "Confusion matrix": (confusion.draw, False, "shares of each true class by predicted class"),
    "What the network gets to see": (images.draw, True, "a training batch and its noise images"),
}


def _pictures(runs: Sequence[Run], titles: Sequence[str]) -> list[Picture]:
    known = {**_SHARED, **_OWN}
    return [_picture(title, runs, *known[title]) for title in titles]


def _picture(title: str, runs: Sequence[Run], draw: Draw, wide: bool, text: str) -> Picture:
    # Lines scale; photographs do not, and thousands of cells would be slow to show.
    pixels = draw is images.draw
    if draw is not curves.draw and len(runs) > 1:
        # A comparison leaves out what a run does not have; its own section says why.
        runs = [run for run in runs if _outcome(run) is not None] or runs
    try:
        figure = draw(runs, Options()).figure
    except PureNoiseError as error:
        return Picture(title, "", f"Not drawn: {error}.")
    buffer = io.BytesIO()
    with styled(), mpl.rc_context({"svg.hashsalt": "purenoise_jax"}):
        if pixels:
            figure.savefig(buffer, format="png", dpi=130)
        else:
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    kind = "png" if pixels else "svg+xml"
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(
        title, f"data:image/{kind};base64,{data}", text, wide, round(100 * figure.get_figwidth())
    )


def _section(run: Run, result: Evaluation | None, several: bool) -> Section:
    config = run.config
    norm = config.model.norm
    if norm == "dar_bn":
        norm += f" ({config.model.noise_grad})"
    methods = ", then ".join(fact.text for fact in run_tables.phase_facts(run))
    subtitle = (
        f"{config.model.name}, {norm}; {methods}; {config.num_epochs} epochs; seed {config.seed}"
    )
    warning = ""
    if result is None:
        warning = "This run has no evaluation yet."
    elif not result.finished:
        warning = (
            "This run is not finished: the numbers are of its newest evaluation, after epoch "
            f"{result.epoch:g} of {config.num_epochs}."
        )
    changed, rest = run_tables.config_facts(run)
    classes = run_tables.class_rows(result) if result else []
    return Section(
        label=run.label,
        subtitle=subtitle,
        warning=warning,
        headline=run_tables.headline(result),
        pictures=_pictures([run], [*_OWN] if several else [*_SHARED, *_OWN]),
        classes=classes,
        folded=len(classes) > MANY_CLASSES,
        shots=run_tables.shot_facts(result) if result else [],
        phases=run_tables.phase_facts(run),
        changed=changed,
        rest=rest,
        data=run_tables.data_facts(run, result),
        provenance=run_tables.provenance(run),
    )


def _outcome(run: Run) -> Evaluation | None:
    try:
        return latest_evaluation(run)
    except ConfigError:
        return None


def _notes(runs: Sequence[Run], results: Sequence[Evaluation | None]) -> list[str]:
    """What a reader of the comparison has to know."""
    notes = []
    for name in ("dataset_fingerprint", "dataset_content"):
        if len({run.recorded[name] for run in runs if run.recorded.get(name)}) > 1:
            notes.append("These runs were not trained on the same images: see their fingerprints.")
            break
    for run, result in zip(runs, results, strict=True):
        if result is None:
            notes.append(f"{run.label} has no evaluation yet.")
        elif not result.finished:
            notes.append(f"{run.label} is not finished: its numbers are after {result.epoch:g} "
                         f"of {run.config.num_epochs} epochs.")  # fmt: skip
    if len(runs) > 1:
        notes.append(_seeds_note(runs))
    return notes


def _seeds_note(runs: Sequence[Run]) -> str:
    """How many seeds stand behind a comparison."""
    seeds: dict[str, set[int]] = collections.defaultdict(set)
    for run in runs:
        # What a run is, but for its seed.
        config = ConfigDict(run.config.to_dict())
        config.seed = 0
        seeds[config_hash(config)].add(run.config.seed)
    fewest, most = min(map(len, seeds.values())), max(map(len, seeds.values()))
    if most == 1:
        return "One seed of each config: small differences may be chance."
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    if len(seeds) == 1:
        return f"One config with {number} seeds: the differences between these runs are chance."
    return (
        f"{len(seeds)} configs, {number} seeds each: differences between "
        "configs that are no larger than those between seeds may be chance."
    )
