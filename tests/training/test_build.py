"""The fields of a config arrive in the parts that `build` makes of it."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from launch.planning import tasks_of
from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.config.identity import differences
from purenoise_jax.config.parts import set_methods
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.config.usual_phases import Times
from purenoise_jax.config.validation import validate
from purenoise_jax.data.augment.compose import make_augment
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models import NORMS
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training import build as build_module
from purenoise_jax.training.build import build, make_model, run_options
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.records import header_lines, precision_note, subset_line
from tests.notes import Notes
from tests.tiny import tiny_config, write_npz

EXPLICIT = {
    "data.normalize": "explicit",
    "data.normalize_mean": (0.1, 0.2, 0.3),
    "data.normalize_std": (0.5, 0.6, 0.7),
}


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """With a validation split that is not the test set."""
    folder = tmp_path_factory.mktemp("data")
    arrays = dict(np.load(write_npz(folder / "tiny.npz")))
    arrays |= {"val_images": arrays["test_images"][::2], "val_labels": arrays["test_labels"][::2]}
    np.savez(folder / "val.npz", **arrays)
    return folder / "val.npz"


@pytest.mark.parametrize("choice", ["train_subset", "full_train", "explicit"])
def test_the_network_gets_images_normalised_as_chosen(npz, choice):
    options = EXPLICIT if choice == "explicit" else {"data.normalize": choice}
    experiment = build(
        tiny_config(npz, **options, **{"data.profile": "exp", "data.imbalance_ratio": 3.0})
    )
    stats, batch_builder = experiment.training.stats, experiment.batch_builder
    mean, std = {
        "train_subset": (stats.mean, stats.std),
        "full_train": (stats.full_mean, stats.full_std),
        "explicit": (np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.6, 0.7])),
    }[choice]
    np.testing.assert_array_equal(batch_builder.mean, mean)
    np.testing.assert_array_equal(batch_builder.std, std)
    assert (stats.mean != stats.full_mean).all(), "a mix-up would be seen"
    identity = experiment.identity
    assert (identity["normalize_mean"], identity["normalize_std"]) == (mean.tolist(), std.tolist())


def test_augmentations_keep_the_order_and_sizes_of_the_config(npz):
    names, sizes = ("cutout", "flip", "crop"), {"crop_padding": 3, "cutout_size": 6}
    options = {f"data.{name}": value for name, value in sizes.items()}
    batch_builder = build(tiny_config(npz, **{"data.augment": names, **options})).batch_builder
    images = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (8, 8, 8, 3)), jnp.float32)
    expected = make_augment(names, **sizes)(jax.random.key(0), images)
    np.testing.assert_array_equal(batch_builder.augment(jax.random.key(0), images), expected)


def test_augmentations_get_their_settings_from_the_config(npz, monkeypatch):
    settings = {
        "color_strength": 1.0,
        "rotation_degrees": 7.0,
        "randaugment_ops": 3,
        "randaugment_magnitude": 5,
        "augmix_severity": 4,
    }
    seen = {}
    monkeypatch.setattr(build_module, "make_augment", lambda names, **given: seen.update(given))
    build(tiny_config(npz, **{f"data.{name}": value for name, value in settings.items()}))
    assert settings.items() <= seen.items()


def test_phases_and_rates_begin_at_their_epochs(npz):
    experiment = build(tiny_config(npz, **{"optimizer.milestones": (2,)}))
    methods = [experiment.phase_of(epoch).methods for epoch in range(4)]
    assert methods == [("erm",), ("erm",), ("open",), ("open",)]
    np.testing.assert_allclose(experiment.rates, [0.1, 0.1, 0.001, 0.001])
    assert experiment.steps_per_epoch == 3
    # With known class shares, evaluation starts from those that each phase trains with.
    zeros, shares = jnp.zeros((1, 4)), jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    plain, even = (phase.postprocess(zeros, shares)[0] for phase in experiment.phases)
    np.testing.assert_array_equal(plain, 0)
    np.testing.assert_allclose(even, shares + np.log(4), rtol=1e-5)
    assert [experiment.phase_of(e).recipe.class_probs is None for e in (1, 2)] == [True, False]


def test_the_dropout_of_a_config_is_that_of_the_network(npz):
    config = tiny_config(npz, **{"model.name": "wrn10_1"})
    rates = []
    for config.model.dropout in (-1.0, 0.0, 0.5):
        rates.append(make_model(config, 3).dropout_rate)
    assert rates == [0.3, 0, 0.5]


COSINE = {"optimizer.schedule": "cosine", "optimizer.milestones": ()}
PHASES = {
    "deferred": make_phase(2, ("drs",)),
    "own": make_phase(4, ("crt",), learning_rate=0.5, milestones=(1,)),
    "continued": make_phase(4, ("crt",)),
    "idle": make_phase(4, ("ncm",)),
    "after": make_phase(6, ("drs",)),
}


def phased(npz, *names, **fields):
    config = tiny_config(npz, **fields)
    config.phases = ConfigDict({"initial": make_phase(0, ("erm",))})
    config.phases.update({name: PHASES[name] for name in names})
    return build(config)


@pytest.mark.parametrize("fields", [COSINE, {"optimizer.milestones": (1, 3)}])
def test_the_schedule_of_the_training_ends_where_a_second_stage_begins(npz, fields):
    alone = phased(npz, "deferred", num_epochs=4, **fields).rates
    whole = phased(npz, "deferred", "own", num_epochs=7, **fields).rates
    np.testing.assert_array_equal(whole[:4], alone)
    np.testing.assert_allclose(whole[4:], [0.5, 0.05, 0.05])
    np.testing.assert_array_equal(phased(npz, "idle", num_epochs=5, **fields).rates[:4], alone)
    # A phase that continues the schedule of the run belongs to it.
    longer = phased(npz, num_epochs=7, **fields).rates
    for names in (("deferred",), ("continued",), ("own", "after")):
        rates = phased(npz, *names, num_epochs=7, **fields).rates
        kept = [0, 1, 2, 3, 6] if "own" in names else slice(None)
        np.testing.assert_array_equal(rates[kept], longer[kept])


def progress_of(experiment):
    """The progress of every step of an experiment, by epoch."""
    steps = experiment.steps_per_epoch
    found = [
        experiment.step_fn(experiment.phase_of(epoch)).progress_fn(
            epoch * steps + jnp.arange(steps)
        )
        for epoch in range(len(experiment.rates))
    ]
    return np.array(found)


def test_progress_is_that_of_the_training_whatever_its_phases(npz):
    plain = progress_of(phased(npz, num_epochs=4))
    np.testing.assert_allclose(plain.ravel(), np.arange(12) / 12, rtol=1e-6)
    np.testing.assert_array_equal(progress_of(phased(npz, "deferred", num_epochs=4)), plain)
    for second in ("own", "idle"):
        found = progress_of(phased(npz, "deferred", second, num_epochs=6))
        np.testing.assert_array_equal(found[:4], plain)
        np.testing.assert_allclose(found[4:].ravel(), np.arange(6) / 6, rtol=1e-6)


@pytest.mark.parametrize(
    "method", ["mixup+open", "mixup+ncm", pytest.param("open+crt", marks=pytest.mark.slow)]
)
def test_one_run_has_the_rates_and_progress_of_the_runs_of_a_table(npz, tmp_path, method):
    """A table trains the phases in runs of their own, of which each starts from the one before."""
    config = tiny_config(npz)
    set_methods(config, method, 10, times=Times(10, warmup=1, drops=(), deferred=8))
    assert_the_parts_make_the_whole(config, tmp_path)


@pytest.mark.parametrize("fields", [COSINE, {"optimizer.milestones": (5, 9)}])
def test_a_phase_with_a_rate_of_its_own_ends_the_training_in_one_run_and_in_two(
    npz, tmp_path, fields
):
    config = tiny_config(npz, num_epochs=10, **fields)
    own = make_phase(8, ("rs",), learning_rate=0.05)
    config.phases = ConfigDict({"initial": make_phase(0, ("erm",)), "deferred": own})
    assert_the_parts_make_the_whole(config, tmp_path)


def assert_the_parts_make_the_whole(config, tmp_path):
    whole, tasks = build(config), tasks_of(config, 0, tmp_path)
    assert [task.first_epoch for task in tasks] == [phase.start for phase in whole.phases]
    ends = [*(task.first_epoch for task in tasks[1:]), len(whole.rates)]
    for task, end in zip(tasks, ends, strict=True):
        part, epochs = build(task.config), slice(task.first_epoch, end)
        for of in (progress_of, lambda experiment: experiment.rates):
            np.testing.assert_array_equal(of(part)[epochs], of(whole)[epochs])


@pytest.mark.parametrize(
    ("precision", "in_the_program"),
    [("default", "DEFAULT"), ("tensorfloat32", "HIGH"), ("float32", "HIGHEST")],
)
def test_all_products_of_step_and_evaluation_have_the_configs_precision(
    npz, precision, in_the_program
):
    experiment = build(tiny_config(npz, matmul_precision=precision))
    state, totals, inputs, epoch = experiment.step_shapes()
    rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), epoch)
    (evaluator, _) = experiment.evaluators(16).values()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    programs = [
        jax.jit(experiment.step_fn(phase)).lower(state, totals, inputs, rows)
        for phase in experiment.phases
    ]
    recipe = experiment.phases[0].recipe
    programs.append(
        evaluator._count.lower(recipe.postprocess, variables, *evaluator._data, *evaluator._rows)
    )
    for lowered in programs:
        lines = lowered.as_text().splitlines()
        kinds = ("stablehlo.convolution", "stablehlo.dot_general")
        products = [line for line in lines if any(kind in line for kind in kinds)]
        assert all(any(kind in line for line in products) for kind in kinds)
        if precision == "default":
            assert not [x for x in products if "HIGH" in x]
        else:
            for line in products:
                found = set(re.findall("DEFAULT|HIGHEST|HIGH", line))
                assert found == {in_the_program}, line


@pytest.mark.parametrize(
    ("fields", "platform", "note"),
    [
        ({}, "cpu", ""),
        ({}, "gpu", "TF32 on recent NVIDIA GPUs"),
        ({"dtype": "bfloat16"}, "gpu", ""),
        ({"matmul_precision": "float32"}, "gpu", " (matmul_precision float32)"),
        ({"matmul_precision": "float32"}, "cpu", " (matmul_precision float32)"),
    ],
)
def test_the_header_says_how_products_are_rounded(fields, platform, note):
    said = precision_note(run_options(tiny_config("x", **fields)), platform)
    assert note in said and bool(said) == bool(note)


def test_the_optimiser_and_its_rates_have_the_numbers_of_the_config(npz):
    numbers = {
        "momentum": 0.3, "weight_decay": 0.07, "learning_rate": 0.6, "warmup_epochs": 2,
        "milestones": (3,), "gamma": 0.5,
    }  # fmt: skip
    experiment = build(tiny_config(npz, **{f"optimizer.{k}": v for k, v in numbers.items()}))
    np.testing.assert_allclose(experiment.rates, [0.3, 0.6, 0.6, 0.3])
    param, grads, trace = np.float32(2), np.float32([0.5, -1.0]), 0.0
    state = experiment.tx.init(jnp.asarray(param))
    for grad in grads:
        update, state = experiment.tx.update(jnp.asarray(grad), state, jnp.asarray(param))
        trace = 0.3 * trace + grad + 0.07 * param
        assert float(update) == pytest.approx(trace, rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("noise_grad", ["auto", "none", "full_stop"])
def test_the_network_has_the_norm_and_dtype_of_the_config(npz, norm, noise_grad):
    fields = {"model.norm": norm, "model.noise_grad": noise_grad, "dtype": "bfloat16"}
    model = build(tiny_config(npz, **fields)).model
    assert model.norm.func is NORMS[norm] and model.dtype == jnp.bfloat16
    given = {"dtype": jnp.bfloat16} | ({} if noise_grad == "auto" else {"noise_grad": noise_grad})
    assert model.norm.keywords == given


def test_the_choice_of_images_follows_every_field_of_it(tmp_path):
    even = write_npz(tmp_path / "even.npz", (40,) * 4)

    def choice(**fields):
        fields = {f"data.{name}": value for name, value in fields.items()}
        return build(tiny_config(even, **{"data.profile": "exp"} | fields)).training.fingerprint

    choices = [
        choice(imbalance_ratio=10.0), choice(imbalance_ratio=5.0), choice(imbalance_ratio=10.0, seed=1),
        choice(imbalance_ratio=10.0, rule="first"), choice(imbalance_ratio=10.0, profile="step"),
        choice(profile="natural"), choice(profile="natural", limit=5),
        choice(profile="auto", class_counts=(5, 9, 7, 2)),
    ]  # fmt: skip
    assert len(set(choices)) == len(choices)


def test_a_run_of_chosen_classes_has_the_given_counts(npz):
    fields = {"data.profile": "auto", "data.classes": (2, 0), "data.class_counts": (5, 6)}
    config = tiny_config(npz, **fields)
    validate(config)
    experiment, options = build(config), run_options(config)
    training = experiment.training
    assert training.stats.class_counts.tolist() == [5, 6]
    arrays = np.load(npz)
    images = {
        k: {image.tobytes() for image in arrays["train_images"][arrays["train_labels"] == k]}
        for k in (2, 0)
    }
    for image, label in zip(training.images, training.labels, strict=True):
        assert image.tobytes() in images[(2, 0)[label]]
    assert len(experiment.dataset.class_names) == 2
    assert np.bincount(experiment.dataset.test_labels).tolist() == [10, 10]
    # Not used, so not filled in.
    assert (options.data_profile, options.imbalance_ratio) == ("auto", 0.0)
    assert subset_line(options, 11, 30) == "class counts as given: 11 of 30 images"
    swapped = build(tiny_config(npz, **fields | {"data.classes": (0, 2)}))
    assert swapped.identity["dataset_content"] != experiment.identity["dataset_content"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_counts": (5, 9), "classes": (2, 0, 1)}, r"has 2 numbers, but data.classes=\(2, 0"),
        ({"class_counts": (5, 9), "imbalance_ratio": 5.0}, r"imbalance_ratio=5.0 both set.*=0$"),
        ({"class_counts": (5, 9), "profile": "natural"}, r"data.profile=natural both.*=auto$"),
        ({"class_counts": (5, 9), "limit": 4}, r"data.limit=4 both set the number"),
        ({"class_counts": (5, 9), "indices": "a.npy"}, r"class_counts=.*indices=a.npy both choose"),
        ({"classes": (2, 0), "indices": "a.npy"}, r"data.classes=\(2, 0\) and data.indices=a.npy"),
    ],
)
def test_class_counts_beside_another_choice_are_refused(tmp_path, fields, message):
    fields = {"profile": "auto"} | fields
    config = tiny_config(tmp_path, **{f"data.{name}": value for name, value in fields.items()})
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_ratio_and_profile_do_not_tell_runs_with_class_counts_apart():
    # Fields that such a run does not use; an earlier version may have recorded them resolved.
    fixed = {"data.class_counts": [5, 9], "data.profile": "auto", "data.imbalance_ratio": 0.0}
    assert differences(fixed, fixed | {"data.profile": "exp", "data.imbalance_ratio": 100.0}) == []
    assert differences(fixed, fixed | {"data.class_counts": [5, 8]}) == [
        "data.class_counts: [5, 9] there, [5, 8] here"
    ]


def test_methods_get_their_arguments(npz):
    (_, deferred) = build(tiny_config(npz, **{"method.open.delta": 0.0})).phases
    batch = {"image": jnp.zeros((45, 8, 8, 3)), "label": jnp.arange(45) % 4}
    (transform,) = deferred.recipe.transforms
    assert not transform(jax.random.key(0), batch)["noise_mask"].any()
    (_, deferred) = build(tiny_config(npz, **{"method.open.delta": 1.0})).phases
    (transform,) = deferred.recipe.transforms
    assert transform(jax.random.key(0), batch)["noise_mask"].any()


def test_each_split_is_evaluated_under_its_own_name(npz):
    experiment = build(tiny_config(npz))
    arrays = np.load(npz)
    for split, evaluator in experiment.evaluators(16).items():
        images, labels = evaluator._data
        np.testing.assert_array_equal(images, arrays[f"{split}_images"])
        np.testing.assert_array_equal(labels, arrays[f"{split}_labels"])
    assert list(experiment.evaluators(16)) == ["test", "val"]


@pytest.mark.slow
def test_held_out_images_are_evaluated_and_named_in_header_and_summary(tmp_path):
    config = tiny_config(
        write_npz(tmp_path / "own.npz"), **{"data.val_per_class": 3, "eval.every_epochs": 1}
    )
    experiment = build(config)
    lines = header_lines(run_options(config), tmp_path, experiment, experiment.init())
    assert lines["validation"] == "9 images held out, 3 of each class; no image of class 3"
    notes = Notes()
    train_and_evaluate(config, tmp_path / "run", notes)
    text = "\n".join(notes.lines)
    assert len(re.findall("validation, balanced", text)) == 4
    assert "best on the test set" in text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["class_counts"] == [21, 9, 3, 3]
    assert 0 <= summary["val_balanced_accuracy"] <= 1
    assert {rule: chosen["evaluations"] for rule, chosen in summary["selected"].items()} == {
        "last": 4,
        "val": 4,
        "test_best": 4,
    }
    assert summary["selected"]["last"]["test_accuracy"] == summary["test_accuracy"]


def test_two_rules_for_validation_images_are_refused(tmp_path):
    config = tiny_config(tmp_path, **{"data.val_per_class": 3, "data.val_fraction": 0.1})
    with pytest.raises(ConfigError, match=r"val_fraction=0.1 and data.val_per_class=3 are two"):
        validate(config)


@pytest.mark.parametrize(
    ("run", "own", "factors"),
    [
        ({}, {}, (1, 1)),
        ({"head_learning_rate": 5.0}, {}, (50, 50)),
        # A phase with a schedule of its own has a ratio of its own.
        ({"head_learning_rate": 5.0}, {"learning_rate": 0.2}, (50, 1)),
        ({}, {"learning_rate": 0.2, "head_learning_rate": 0.05}, (1, 0.25)),
    ],
)
def test_the_head_trains_at_a_ratio_to_the_rate_of_the_rest(npz, run, own, factors):
    fields = {f"optimizer.{name}": value for name, value in run.items()}
    config = tiny_config(npz, **fields)
    config.phases.deferred.update(own)
    experiment = build(config)
    for phase, factor in zip(experiment.phases, factors, strict=True):
        step, state = experiment.step_fn(phase), experiment.init()
        # The first step whose rate is not that of the warm-up.
        first = max(phase.start, 1) * experiment.steps_per_epoch
        state = state.replace(step=jnp.asarray(first, jnp.int32))
        grads = jax.tree.map(jnp.ones_like, state.params)
        params, _ = step._optimize(state, grads, {"noise_mask": np.zeros(1, bool)})
        rate = experiment.rates[max(phase.start, 1)]
        for name, (new, old) in by_name(zip_trees(params, state.params)).items():
            expected = rate * (factor if name.startswith("head/") else 1) * (1 + 2e-4 * old)
            np.testing.assert_allclose(old - new, expected, rtol=1e-4, atol=1e-6, err_msg=name)


def zip_trees(*trees):
    return jax.tree.map(Pair, *trees)


class Pair:
    """Two arrays, as a leaf of a tree."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def __iter__(self):
        return iter(self.arrays)


def test_a_factor_of_a_method_and_that_of_the_head_are_multiplied():
    recipe = Recipe(lr_factor=lambda path: 0.5 if path[-1] == "bias" else 1.0).with_head_factor(4)
    paths = {
        ("head", "bias"): 2,
        ("head", "fc", "kernel"): 4,
        ("conv", "bias"): 0.5,
        ("conv", "kernel"): 1,
    }
    assert {path: recipe.lr_factor(path) for path in paths} == paths
    plain = Recipe()
    assert plain.with_head_factor(1.0) is plain
    assert plain.with_head_factor(3).lr_factor(("projector", "plain_head", "fc", "kernel")) == 1


def test_a_head_rate_of_a_phase_without_a_schedule_is_refused(npz):
    config = tiny_config(npz)
    config.phases.deferred.head_learning_rate = 0.1
    with pytest.raises(
        ConfigError, match=r"phases\.deferred\.head_learning_rate=0\.1 is used only"
    ):
        validate(config)
