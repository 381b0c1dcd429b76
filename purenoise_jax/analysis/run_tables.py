"""The tables of a report about a run; a missing value is a dash with its reason."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np

from purenoise_jax.analysis.class_scores import class_scores
from purenoise_jax.analysis.latest_evaluation import Evaluation
from purenoise_jax.config.fields import default_config, flatten
from purenoise_jax.inference.calibration_file import read_scaled
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.console import duration
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.intervals import Interval, of_classes
from purenoise_jax.training.metrics import NUM_GROUPS, frequency_groups, shot_groups
from purenoise_jax.training.shifted_tests import NAMES

NONE = "\N{EN DASH}"
# The most classes in one table, and the number in each of the two that show more.
ALL, EACH = 200, 20


@dataclasses.dataclass(frozen=True)
class Row:
    """A named value as text.

    Attributes:
        name: name of the value.
        text: the value; a dash if there is none.
        note: a remark on it, or the reason why there is none.
        small: True for a hash, which is long and seldom read.
    """

    name: str
    text: str
    note: str = ""
    small: bool = False


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """One class of a table of classes.

    Attributes:
        name: name of the class.
        images: training images.
        width: width of its bar, in percent of the largest class.
        accuracy: percent as text, or a dash.
        group: 1 (rarest) .. 5, or "" without groups.
        tested: number of test images as text, or a dash.
        interval: of the accuracy, as text, or "".
        precision, f1, average_precision: percent as text, or a dash.
    """

    name: str
    images: int
    width: float
    accuracy: str
    group: str
    tested: str = NONE
    interval: str = ""
    precision: str = NONE
    f1: str = NONE
    average_precision: str = NONE


def headline(evaluation: Evaluation | None, missing: str = "not evaluated yet") -> list[Row]:
    """Returns the main numbers of a run.

    Args:
        evaluation: None = there is none.
        missing: why there is none.
    """
    if evaluation is None:
        names = ("test accuracy", "balanced accuracy", "rarest fifth of the classes",
                 "geometric mean of recalls", "negative log-likelihood",
                 "calibration error (ECE)", "mean average precision")  # fmt: skip
        return [Row(name, NONE, missing) for name in names]
    shares = evaluation.number("per_class_accuracy") or []
    absent = sum(share is None for share in shares)
    known = f"over the {len(shares) - absent:,} classes with {evaluation.title} images"
    known = known if absent else ""
    missed = sum(share == 0 for share in shares)
    zero = f"{missed:,} of {len(shares):,} classes never recognised" if missed else ""
    nll, top5 = evaluation.number("nll"), evaluation.number("top5_accuracy")
    within = "" if top5 is None else f"{100 * top5:.1f} % among the top 5"
    spread = evaluation.counted[1] if evaluation.counted else None
    ends, balanced = (spread.accuracy, spread.balanced_accuracy) if spread else (None, None)
    within, over = _joined(_interval(ends), within), _joined(_interval(balanced), known)
    return [
        Row(f"{evaluation.title} accuracy", *_percent(evaluation.number("accuracy"), note=within)),
        Row("balanced accuracy", *_percent(evaluation.number("balanced_accuracy"), note=over)),
        _rarest(evaluation),
        Row(
            "geometric mean of recalls",
            *_percent(evaluation.number("geometric_mean"), note=zero or known),
        ),
        Row(
            "negative log-likelihood",
            NONE if nll is None else f"{nll:.3f}",
            "not recorded" if nll is None else "nats per image",
        ),
        Row("calibration error (ECE)", *_percent(evaluation.number("ece"))),
        Row("mean average precision", *_percent(evaluation.mean_average_precision, note=known)),
    ]


def other_rows(evaluation: Evaluation | None) -> list[Row]:
    """Returns the accuracies on validation images beside a test set, and on training images."""
    if evaluation is None:
        return []
    parts = {"validation": evaluation.validation, "training": evaluation.training}
    return [
        Row(f"{part}, {name.replace('_', ' ')}", *_percent(share))
        for part, numbers in parts.items()
        for name, share in numbers.items()
    ]


def shifted_rows(evaluation: Evaluation) -> list[Row]:
    """Returns the accuracy on test sets with other class frequencies, see `shifted_tests`."""
    pairs = evaluation.number("shifted_accuracy") or []
    return [
        Row(name, f"{100 * unknown:.1f} %", f"{100 * known:.1f} % if the frequencies are known")
        for name, (unknown, known) in zip(NAMES, pairs, strict=False)
    ]


def calibration_rows(evaluation: Evaluation) -> list[Row]:
    """Returns the fit of the probabilities after temperature scaling; none without calibration."""
    try:
        found = read_scaled(evaluation.workdir, evaluation.step)
    except ConfigError as error:
        return [Row("temperature", NONE, str(error))]
    if found is None:
        return []
    images = int(found.after.bins[:, 0].sum())
    return [
        Row("temperature", f"{found.temperature:.3g}", "logits are divided by it"),
        Row("measured on", f"{images:,} {found.title}"),
        Row("negative log-likelihood", f"{found.after.nll:.3f}", f"{found.before.nll:.3f} before"),
        Row("calibration error (ECE)", *_percent(found.after.ece,
                                                 note=f"{100 * found.before.ece:.1f} % before")),
    ]  # fmt: skip


def config_rows(run: Run) -> tuple[list[Row], list[Row]]:
    """Returns the config fields that differ from their default, with that default, and the rest."""
    defaults = flatten(default_config())
    changed, rest = [], []
    for name, value in flatten(run.config).items():
        if name.startswith("phases."):
            continue
        if value == defaults[name]:
            rest.append(Row(name, _value(value)))
        else:
            changed.append(Row(name, _value(value), f"default {_value(defaults[name])}"))
    return changed, rest


def differing_fields(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Returns the config fields that are not the same in all runs, with each run's value."""
    flat = [flatten(run.config) for run in runs]
    names = dict.fromkeys(name for fields in flat for name in fields)
    rows = [(name, [_value(fields[name]) if name in fields else NONE for fields in flat])
            for name in names]  # fmt: skip
    return [(name, texts) for name, texts in rows if len(set(texts)) > 1]


def phase_rows(run: Run) -> list[Row]:
    """Returns the phases in order of their start, with their methods and epochs."""
    phases = sorted(run.config.phases.items(), key=lambda item: item[1].start_epoch)
    ends = [phase.start_epoch for _, phase in phases[1:]] + [run.config.num_epochs]
    rows = []
    for (name, phase), end in zip(phases, ends, strict=True):
        methods = " + ".join(phase.methods)
        if phase.get("freeze"):
            methods += f" ({', '.join(phase.freeze)} frozen)"
        rows.append(Row(name, methods, f"epochs {phase.start_epoch + 1} .. {end}"))
    return rows


def data_rows(run: Run, evaluation: Evaluation | None) -> list[Row]:
    """Returns the training set's name, size, imbalance and hashes."""
    recorded, data = run.recorded, run.config.data
    counts = recorded.get("class_counts") or (evaluation.class_counts if evaluation else None)
    shape = recorded.get("image_shape")
    missing = "not recorded yet"
    mean, std = recorded.get("normalize_mean"), recorded.get("normalize_std")
    rows = [Row("data set", data.name if data.source in ("auto", "tfds", "cifar_dir", "digits")
                else f"{data.source} {data.path}")]  # fmt: skip
    if counts:
        ratio = f"imbalance ratio {max(counts) / min(counts):,.4g} (largest class over smallest)"
        rows.append(Row("training images", f"{sum(counts):,}", ratio))
        rows.append(Row("classes", f"{len(counts):,}"))
    else:
        rows.append(Row("training images", NONE, missing))
    if recorded.get("left_out"):
        rows.append(Row("left-out images", f"{recorded['left_out']:,}", "they could not be read"))
    rows += _held_out_rows(run, evaluation)
    rows.append(
        Row("image shape", " x ".join(map(str, shape)))
        if shape
        else Row("image shape", NONE, missing)
    )
    rows.append(
        Row("normalised by mean, std", f"{_numbers(mean)}; {_numbers(std)}", data.normalize)
        if mean and std
        else Row("normalised by mean, std", NONE, missing)
    )
    for name, key, note in (
        ("fingerprint", "dataset_fingerprint", "sha256 of the chosen indices"),
        ("content", "dataset_content", "sha256 of all labels and images"),
    ):
        value = recorded.get(key)
        rows.append(Row(name, value, note, small=True) if value else Row(name, NONE, missing))
    return rows


def _held_out_rows(run: Run, evaluation: Evaluation | None) -> list[Row]:
    """The sizes of the validation set and of the test set, as far as they were evaluated."""
    rows = []
    matrices = [r["val/confusion_matrix"] for r in run.metrics if "val/confusion_matrix" in r]
    if matrices and run.shown == "test":
        rows.append(Row("validation images", f"{int(np.sum(matrices[-1])):,}"))
    if evaluation is not None and evaluation.counted is not None:
        tested = evaluation.counted[0].by_true()
        there = tested[tested > 0]
        low, high = int(there.min()), int(there.max())
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        absent = int((tested == 0).sum())
        without = f"; none of {absent:,} classes" if absent else ""
        size = f"{int(tested.sum()):,}"
        rows.append(Row(f"{evaluation.title} images", size, f"{each} of a class{without}"))
    return rows


def date_of(run: Run) -> str:
    """Returns the day and the time, UTC, at which the newest numbers were written; "" = none."""
    files = (run.path / name for name in ("summary.json", "metrics.jsonl"))
    times = [file.stat().st_mtime for file in files if file.is_file()]
    if not times:
        return ""
    return f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC"


def provenance(run: Run) -> list[Row]:
    """Returns the run's start, duration, devices, hashes and versions."""
    summary = run.summary or {}
    recorded = run.recorded
    missing = "the run is not finished" if run.summary is None else "not recorded"
    versions = summary.get("versions", {})
    commit, device = versions.get("commit"), versions.get("device")
    seconds, speed = recorded.get("seconds"), summary.get("images_per_second")
    origin = recorded.get("init_from")
    started = "random parameters" if recorded else NONE
    if origin:
        epoch = origin.get("weights_after_epoch", origin["epoch"])
        head = f"; the network, {origin['head']}" if "head" in origin else ""
        started = f"{origin['workdir']} after epoch {epoch:g}{head}"
    rows = [
        Row("workdir", str(run.path)),
        Row("seed", str(run.config.seed)),
        Row("started from", started, "" if recorded else missing),
        Row("training time", duration(seconds) if seconds is not None else NONE,
             "until the newest checkpoint" if run.summary is None and seconds is not None
             else "" if seconds is not None else missing),
        Row("images per second", f"{speed:,.0f}" if speed else NONE, "" if speed else missing),
        Row("devices", f"{summary['devices']} x {device}" if device else NONE,
             "" if device else missing),
        Row("commit", commit or NONE, "" if commit else missing, small=bool(commit)),
        Row("date", date_of(run) or NONE, "of the newest numbers"),
    ]  # fmt: skip
    if recorded.get("skipped_steps"):
        note = "not finite, so without effect; skipped.jsonl lists their batches"
        rows.append(Row("skipped steps", f"{recorded['skipped_steps']:,}", note))
    for name, key in (("config hash", "config_hash"), ("state digest", "state_digest")):
        value = summary.get(key)
        rows.append(Row(name, value or NONE, "" if value else missing, small=bool(value)))
    shown = [f"{k} {v}" for k, v in versions.items() if k not in ("commit", "device")]
    rows.append(Row("versions", ", ".join(shown) or NONE, "" if shown else missing))
    return rows


def class_rows(evaluation: Evaluation) -> list[ClassRow]:
    """Returns a row for every class, the most frequent first."""
    counts = evaluation.class_counts
    largest = max(counts)
    groups = frequency_groups(np.asarray(counts))
    group_of = {int(k): str(i + 1) for i, group in enumerate(groups) for k in group}
    shares = evaluation.number("per_class_accuracy") or [None] * len(counts)
    rows = [
        ClassRow(
            name=evaluation.class_names[k],
            images=counts[k],
            width=round(100 * counts[k] / largest, 2),
            accuracy=_share(shares[k]),
            group=group_of.get(k, ""),
            average_precision=_share(evaluation.average_precision[k]),
        )
        for k in evaluation.order
    ]
    if evaluation.counted is None:
        return rows
    matrix, spread = evaluation.counted
    scores, tested = class_scores(matrix), matrix.by_true()
    return [
        dataclasses.replace(
            row,
            tested=f"{tested[k]:,}",
            interval=_interval(spread.per_class[k], named=False),
            precision=_share(scores.precision[k]),
            f1=_share(scores.f1[k]),
        )
        for row, k in zip(rows, evaluation.order, strict=True)
    ]


def class_tables(evaluation: Evaluation) -> list[tuple[str, list[ClassRow]]]:
    """Returns the tables of classes, each with its heading.

    One with all of them; of more than ALL classes, one with the EACH least accurate and one with
    the EACH most accurate. Among equals, the first begins with the most frequent classes in
    training, and the second with the rarest, because there the accuracy is least expected.
    """
    rows = class_rows(evaluation)
    if len(rows) <= ALL:
        return [(f"all {len(rows)} classes", rows)]
    shares = evaluation.number("per_class_accuracy") or [None] * len(rows)
    known = [
        (share, row)
        for share, row in zip([shares[k] for k in evaluation.order], rows, strict=True)
        if share is not None
    ]
    worst = sorted(known, key=lambda pair: (pair[0], -pair[1].images))[:EACH]
    best = sorted(known, key=lambda pair: (-pair[0], pair[1].images))[:EACH]
    return [
        (f"the {EACH} least accurate of {len(rows):,} classes", [row for _, row in worst]),
        (f"the {EACH} most accurate of {len(rows):,} classes", [row for _, row in best]),
    ]


def accuracy_rows(evaluation: Evaluation) -> list[Row]:
    """Returns how many classes have an accuracy in each of six ranges."""
    shares = evaluation.number("per_class_accuracy") or []
    known = [share for share in shares if share is not None]
    edges = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    counted = [("0 %", sum(share == 0 for share in known))]
    counted += [
        (
            f"above {100 * low:.0f} to {100 * high:.0f} %",
            sum(low < share <= high for share in known),
        )
        for low, high in pairwise(edges)
    ]
    return [
        Row(name, f"{count:,}", f"{100 * count / max(len(known), 1):.1f} % of the classes")
        for name, count in counted
    ]


def shot_rows(evaluation: Evaluation) -> list[Row]:
    """Returns the accuracy of the classes with many, a medium number and few training images."""
    groups = shot_groups(np.asarray(evaluation.class_counts))
    legends = {"many": "> 100 images", "medium": "20 .. 100 images", "few": "< 20 images"}
    return [
        Row(
            f"{name} ({legend})",
            *_percent(
                evaluation.number(f"{name}_accuracy"),
                note=_ends(evaluation, groups[name]),
                missing=f"none of them is in the {evaluation.title} set"
                if groups[name].size
                else "no such class",
            ),
        )
        for name, legend in legends.items()
    ]


def _rarest(evaluation: Evaluation) -> Row:
    shares, count = evaluation.number("group_accuracy"), len(evaluation.class_counts)
    if shares is None:
        return Row("rarest fifth of the classes", NONE, f"{count} classes; needs {NUM_GROUPS}")
    group = frequency_groups(np.asarray(evaluation.class_counts))[0]
    names = ", ".join(evaluation.class_names[k] for k in group[::-1])
    note = names if len(group) <= 3 else f"{len(group):,} classes"
    note = _joined(_ends(evaluation, group), note)
    absent = f"none of its classes is in the {evaluation.title} set"
    return Row("rarest fifth of the classes", *_percent(shares[0], note=note, missing=absent))


def _ends(evaluation: Evaluation, classes: np.ndarray) -> str:
    """The interval of the mean accuracy of classes, as text; "" if it is not known."""
    if evaluation.counted is None:
        return ""
    return _interval(of_classes(evaluation.counted[0].results(), classes))


def _share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _interval(ends: Interval | None, *, named: bool = True) -> str:
    if ends is None:
        return ""
    text = f"{100 * ends.low:.1f} to {100 * ends.high:.1f}"
    return f"95 % interval {text}" if named else text


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _percent(
    share: float | None, *, note: str = "", missing: str = "not recorded"
) -> tuple[str, str]:
    return (NONE, missing) if share is None else (f"{100 * share:.1f} %", note)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_value, value)) + ")" if value else "()"
    if isinstance(value, float):
        return f"{value:.6g}"
    return '""' if value == "" else str(value)
