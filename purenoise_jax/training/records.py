"""Header, per-epoch records and summary of a run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purenoise_jax.checkpoint.digest import state_digest
from purenoise_jax.runtime.console import class_counts_line, phases_line
from purenoise_jax.runtime.errors import counted
from purenoise_jax.runtime.threads import cores
from purenoise_jax.training import metrics, probabilities
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.confusion import FILES, Confusion, save
from purenoise_jax.training.cost import cost_line
from purenoise_jax.training.evaluation import Evaluator
from purenoise_jax.training.event_writer import TRAIN, Facts
from purenoise_jax.training.experiment import Experiment, Phase
from purenoise_jax.training.intervals import interval_numbers
from purenoise_jax.training.options import RunOptions
from purenoise_jax.training.shifted_tests import shifted_accuracy
from purenoise_jax.training.throughput import StepTimer
from purenoise_jax.training.train_step import TrainState

# Up to so many classes, records and summary hold the confusion matrix as a list of its rows. That
# of more classes is only in the file that is written at the end.
LISTED = 100
# Up to so many changes of the learning rate, the header lists all.
CHANGES = 6


class Results(NamedTuple):
    """Results of a split for the files that are written at the end of a run.

    Attributes:
        confusion: the confusion matrix.
        top5: int[K], its images with their class among the top 5.
        bins: f32[bins, 3], see `Probabilities`.
        logits: f32[M, K] of the images that were not left out; None = they were not kept.
        labels: int[M] of these images.
    """

    confusion: Confusion
    top5: np.ndarray
    bins: np.ndarray
    logits: np.ndarray | None
    labels: np.ndarray


def header_lines(
    options: RunOptions,
    workdir: Path,
    experiment: Experiment,
    state: TrainState,
    init_from: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Lines of the header, by name.

    Args:
        options: of the run.
        workdir: of the run.
        experiment: what is run.
        state: of which the parameters are counted.
        init_from: the run with whose checkpoint it began, see `RestorePoint`.
    """
    device = jax.devices()[0]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    model = f"{options.model}, {norm_line(options.norm, options.noise_grad)}"
    steps = experiment.steps_per_epoch
    starts = [(phase.start, _shown(phase)) for phase in experiment.phases]
    counts = experiment.training.stats.class_counts.tolist()
    done = int(state.step) / steps
    if device.platform == "cpu":
        cost = cost_line(
            options.model,
            experiment.model,
            experiment.training.stats.image_shape,
            images=round((options.num_epochs - done) * len(experiment.training.labels)),
            cores=cores() * jax.process_count(),
            resizes=options.image_size > 0,
        )
    else:
        cost = ""
    weights = {} if experiment.pretrained is None else {"weights": experiment.pretrained.note}
    if init_from and "head" in init_from:
        weights = {"weights": weights_line(init_from)}
    return {
        "workdir": str(workdir),
        "devices": f"{experiment.placement.mesh.size} x {device.platform} ({device.device_kind})",
        "model": f"{model}, {parameters:,} parameters, {options.dtype}"
        f"{precision_note(options, device.platform)}",
        **weights,
        "data": f"{experiment.dataset.name}, {class_counts_line(counts)}",
        "subset": subset_line(
            options,
            len(experiment.training.labels),
            len(experiment.dataset.train_labels),
            experiment.training.num_held_out,
        ),
        **split_lines(options, experiment),
        "images": images_line(options, experiment.training.stats.image_shape),
        "fingerprint": experiment.training.fingerprint,
        "phases": phases_line(starts, steps),
        "length": f"{counted(options.num_epochs, 'epoch')} of {counted(steps, 'step')}, "
        f"{options.num_epochs * steps:,} in all, {options.batch_size} images a step",
        "rate": rate_line(experiment.rates),
        **({"time": cost} if cost else {}),
    }


def norm_line(norm: str, noise_grad: str) -> str:
    """The norm with what noise may change by its gradients, as `model.norm` and `noise_grad`."""
    if noise_grad == "auto" and norm != "dar_bn":
        return norm
    return f"{norm} ({noise_grad})".replace("auto", "affine_stop")


def _shown(phase: Phase) -> tuple[str, ...]:
    """The methods of a phase, and the parts of the network that do not train."""
    if not phase.frozen:
        return phase.methods
    return (f"{' + '.join(phase.methods)} ({', '.join(phase.frozen)} frozen)",)


def weights_line(init_from: Mapping[str, Any]) -> str:
    """Names the run whose network alone was taken over, and says how the head began.

    Args:
        init_from: of such a run, see `RestorePoint`.
    """
    epoch = init_from["weights_after_epoch"]
    return f"{init_from['workdir']} after epoch {epoch:g}; {init_from['head']}"


def facts_of(fields: Mapping[str, Any], options: RunOptions, experiment: Experiment) -> Facts:
    """Facts of a run for TensorBoard.

    Args:
        fields: that define its results, from config.json.
        options: of the run.
        experiment: of the run.
    """
    dataset = experiment.dataset
    counts = {TRAIN: experiment.training.stats.class_counts.tolist()}
    for split, labels in (("test", dataset.test_labels), ("val", dataset.val_labels)):
        if labels is not None and len(labels):
            counts[split] = np.bincount(labels, minlength=dataset.num_classes).tolist()
    return Facts({**fields, "num_epochs": options.num_epochs}, dataset.class_names, counts)


def images_line(options: RunOptions, image_shape: tuple[int, int, int]) -> str:
    """Line of the header: the size of the images and their augmentation.

    Args:
        options: of the run.
        image_shape: (H, W, C).
    """
    size = " x ".join(map(str, image_shape))
    how = f"resized ({options.resize})" if options.image_size else "as stored"
    return f"{size}, {how}; augmented by {', '.join(options.augment) or 'nothing'}"


def rate_line(rates: np.ndarray) -> str:
    """Line of the header: the learning rate.

    Args:
        rates: f64[E], by epoch.
    """
    first = int(np.argmax(rates))
    warm_up = f" after {first} epoch{'s' * (first > 1)} of warm-up" if first else ""
    line = f"{rates[first]:.3g}{warm_up}"
    later = [e for e in range(first + 1, len(rates)) if rates[e] != rates[e - 1]]
    if len(later) > CHANGES:
        return f"{line}, {rates[-1]:.3g} in the last epoch"
    return "".join([line, *(f", {rates[e]:.3g} from epoch {e}" for e in later)])


def split_lines(options: RunOptions, experiment: Experiment) -> dict[str, str]:
    """Lines of the header about validation and test images, by name, where there is news.

    That is if they were held out of the training images, if there are none to test with, or if they
    lack classes.
    """
    dataset, training = experiment.dataset, experiment.training
    lines = {}
    splits = (
        ("validation", dataset.val_labels, training.val_labels, options.val_rule),
        ("test", dataset.test_labels, training.test_labels, "a share of each class"),
    )
    for name, labels, held_out, rule in splits:
        if labels is None:
            continue
        if name == "test" and options.eval_test == "never":
            lines[name] = "not evaluated (eval.test=never); validation results take its place"
            continue
        if not len(labels) and dataset.val_labels is None:
            lines[name] = "no images, and none for validation, so no accuracy will be known"
            continue
        if not len(labels):
            lines[name] = "no images; validation results take the place of test results"
            continue
        counts = np.bincount(labels, minlength=dataset.num_classes)
        if held_out is not None or not counts.all():
            lines[name] = split_line(
                counts, dataset.class_names, rule if held_out is not None else ""
            )
    return lines


def split_line(class_counts: np.ndarray, class_names: Sequence[str], rule: str) -> str:
    """Line of the header about the images of a split.

    Args:
        class_counts: int[K], images of each class.
        class_names: K names.
        rule: by which they were held out of the training images; "" = they were not.
    """
    without = [class_names[k] for k in np.flatnonzero(class_counts == 0).tolist()]
    line = counted(int(class_counts.sum()), "image") + (f" held out, {rule}" if rule else "")
    if not without:
        return line
    more = f" and {len(without) - 10} more" if len(without) > 10 else ""
    classes = "class" if len(without) == 1 else f"{len(without)} classes:"
    return f"{line}; no image of {classes} {', '.join(without[:10])}{more}"


def subset_line(options: RunOptions, kept: int, available: int, held_out: int = 0) -> str:
    """Line of the header: how many of the training images train, and by which rule.

    Args:
        options: of the run.
        kept: images that train.
        available: images that the data set has.
        held_out: those of them that validate or test.
    """
    if options.data_indices:
        rule = f"listed in {Path(options.data_indices).name}"
    elif options.data_class_counts:
        rule = "class counts as given"
    elif options.data_profile == "natural":
        rule = options.data_profile
    else:
        rule = f"{options.data_profile}, ratio {options.imbalance_ratio:g}"
    if options.data_limit:
        rule += f", data.limit={options.data_limit}"
    if kept + held_out == available:
        return f"all {kept:,} images kept ({rule})"
    return f"{rule}: {kept:,} of {available:,} images"


def precision_note(options: RunOptions, platform: str) -> str:
    """Note on the precision of float32 products, where it is not plain float32.

    Args:
        options: of the run.
        platform: that it computes on: "cpu", "gpu", ...

    Returns:
        Text to follow the dtype, or "".
    """
    if options.matmul_precision != "default":
        return f" (matmul_precision {options.matmul_precision})"
    # On a CPU the default is full float32.
    if platform == "cpu" or options.dtype != "float32":
        return ""
    return " (products as the device has them, TF32 on recent NVIDIA GPUs: matmul_precision)"


def evaluate_all(
    evaluators: Mapping[str, Evaluator],
    state: TrainState,
    phase: Phase,
    class_counts: np.ndarray,
    may_be_last: bool = False,
) -> tuple[dict[str, dict[str, Any]], dict[str, Results]]:
    """All numbers of every split, except those that do not exist, and the results for the files.

    Those of the training images have, in place of the confusion matrix, `predicted_images`: for
    each class the number of training images that are classified as it.

    Args:
        evaluators: by split.
        state: what to evaluate.
        phase: that it was trained in.
        class_counts: int[K], training images per class.
        may_be_last: keep the logits of the test and validation images, unless they are too many.
    """
    evaluated, found, classes = {}, {}, len(class_counts)
    for split, evaluator in evaluators.items():
        labels = np.asarray(evaluator.labels)
        keep = may_be_last and split in probabilities.FILES
        predicted, sums, logits = evaluator(
            phase.recipe.evaluated(state),
            phase.postprocess,
            logits=keep and len(labels) * classes <= probabilities.MOST,
        )
        confusion = Confusion.of(labels, predicted, classes)
        top5, bins, hits = map(np.asarray, (sums.top5, sums.bins, sums.hits))
        results = confusion.results(top5)
        numbers = metrics.summarize(results, float(sums.nll), bins, class_counts)
        if split == metrics.TRAINING_SET:
            # With the class counts they give the classification ratio (Ye et al. 2021, A.1).
            numbers["predicted_images"] = confusion.by_predicted().tolist()
        else:
            if len(class_counts) <= LISTED:
                numbers["confusion_matrix"] = confusion.dense().tolist()
            numbers["shifted_accuracy"] = shifted_accuracy(
                results.images, results.correct, hits, class_counts
            )
        evaluated[split] = {k: v for k, v in numbers.items() if _is_number(v)}
        read = np.asarray(predicted) >= 0
        logits = logits if logits is None or read.all() else logits[read]
        found[split] = Results(confusion, top5, bins, logits, labels[read])
    return evaluated, found


def save_results(workdir: Path, results: Mapping[str, Results], step: int) -> None:
    """Writes the confusion matrix of every split, and the fit of its probabilities.

    See `confusion.save` and `probabilities.save`; the latter is not written of training images.

    Args:
        workdir: of the run.
        results: from `evaluate_all`.
        step: completed steps.

    Raises:
        OSError: a file could not be written.
    """
    for split, (confusion, top5, bins, logits, labels) in results.items():
        save(workdir / FILES[split], confusion, top5, step)
        if split in probabilities.FILES:
            precision: list[float | None] = [None] * confusion.classes
            if logits is not None:
                precision = probabilities.average_precisions(logits, labels)
            fit = probabilities.Probabilities(bins, precision)
            probabilities.save(workdir / probabilities.FILES[split], fit, step)


def _is_number(value: Any) -> bool:
    """True for a finite number or a list; finite parameters can have an infinite likelihood."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def epoch_record(
    totals: EpochMetrics,
    phase: Phase,
    done: int,
    learning_rate: float,
    timer: StepTimer,
    evaluated: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Record of an epoch for metrics.jsonl.

    Args:
        totals: over its training steps; without any, their means are left out.
        phase: that it belongs to.
        done: completed epochs.
        learning_rate: within it.
        timer: the rate of steps so far.
        evaluated: numbers from `evaluate_all`, empty where nothing was evaluated.
    """
    sums, skipped = jax.device_get(totals)
    means = {}
    # All images of an epoch may have been left out.
    if sums.steps and sums.natural + sums.noise:
        means = {
            "train/loss": float(sums.row_loss / (sums.natural + sums.noise)),
            "train/accuracy": float(sums.correct / max(int(sums.natural), 1)),
            "train/noise_fraction": int(sums.noise) / int(sums.natural + sums.noise),
        }
    return {
        "epoch": done,
        **{name: value for name, value in means.items() if _is_number(value)},
        "train/learning_rate": learning_rate,
        "train/steps": int(sums.steps),
        "train/skipped": int(skipped.sum()),
        "train/methods": list(phase.methods),
        "train/images_per_second": timer.images_per_second,
        **by_split(evaluated),
    }


def final_record(
    phase: Phase, done: int, evaluated: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Record for metrics.jsonl of the last epoch where it was not trained, but evaluated.

    Args:
        phase: whose methods evaluate.
        done: completed epochs.
        evaluated: numbers from `evaluate_all`.
    """
    return {"epoch": done, "train/methods": list(phase.methods), **by_split(evaluated)}


def by_split(evaluated: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of `evaluate_all` as records have them, by SPLIT/NAME."""
    return {f"{split}/{k}": v for split, numbers in evaluated.items() for k, v in numbers.items()}


def intervals_of(
    results: Mapping[str, Results], class_counts: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Intervals of the accuracies of the test and validation images, by split.

    Training images have none: they are not drawn anew.

    Args:
        results: from `evaluate_all`.
        class_counts: int[K], training images per class.
    """
    return {
        split: interval_numbers(found.confusion.results(found.top5), class_counts)
        for split, found in results.items()
        if split != metrics.TRAINING_SET and len(found.labels)
    }


def make_summary(
    options: RunOptions,
    experiment: Experiment,
    state: TrainState,
    evaluated: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Summary of a finished run, without its epochs, origin, time and versions.

    Numbers whose names begin with neither `test_` nor `val_` are of the split `shown`; it is None,
    and they are missing, if there is no image to measure with. Those of the training images, if
    they were evaluated, are under `training_set`.
    """
    shown = experiment.dataset.shown
    numbers = dict(evaluated.get(shown, {}))
    for name in ("accuracy", "nll", "ece"):
        numbers.pop(name, None)
        numbers[f"test_{name}"] = evaluated.get("test", {}).get(name)
    for name in ("accuracy", "balanced_accuracy", "nll", "ece"):
        if "val" in evaluated:
            numbers[f"val_{name}"] = evaluated["val"].get(name)
    if metrics.TRAINING_SET in evaluated:
        numbers[metrics.TRAINING_SET] = dict(evaluated[metrics.TRAINING_SET])
    return {
        **numbers,
        "shown": shown if shown in evaluated else None,
        **experiment.identity,
        "class_names": experiment.dataset.class_names,
        "left_out": len(experiment.dataset.left_out),
        "steps": int(state.step),
        "seed": options.seed,
        "config_hash": options.config_hash,
        "state_digest": state_digest(jax.device_get(state)),
        "devices": experiment.placement.mesh.size,
    }
