"""What a config says arrives where it counts: in the parts that `build` makes of it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.data.augment import make_augment
from purenoise_jax.experiment import build
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
    stats, loader = experiment.training.stats, experiment.loader
    mean, std = {
        "train_subset": (stats.mean, stats.std),
        "full_train": (stats.full_mean, stats.full_std),
        "explicit": (np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.6, 0.7])),
    }[choice]
    np.testing.assert_array_equal(loader.mean, mean)
    np.testing.assert_array_equal(loader.std, std)
    assert (stats.mean != stats.full_mean).all(), "a mix-up would be seen"
    identity = experiment.identity
    assert (identity["normalize_mean"], identity["normalize_std"]) == (mean.tolist(), std.tolist())


def test_augmentations_keep_the_order_and_sizes_of_the_config(npz):
    names, sizes = ("cutout", "flip", "crop"), {"crop_padding": 3, "cutout_size": 6}
    options = {f"data.{name}": value for name, value in sizes.items()}
    loader = build(tiny_config(npz, **{"data.augment": names, **options})).loader
    images = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (8, 8, 8, 3)), jnp.float32)
    expected = make_augment(names, **sizes)(jax.random.key(0), images)
    np.testing.assert_array_equal(loader.augment(jax.random.key(0), images), expected)


def test_phases_and_rates_begin_at_their_epochs(npz):
    experiment = build(tiny_config(npz, **{"optimizer.milestones": (2,)}))
    methods = [experiment.phase_of(epoch).methods for epoch in range(4)]
    assert methods == [("erm",), ("erm",), ("open",), ("open",)]
    np.testing.assert_allclose(experiment.rates, [0.1, 0.1, 0.001, 0.001])
    assert experiment.steps_per_epoch == 3
    assert [experiment.phase_of(e).recipe.class_probs is None for e in (1, 2)] == [True, False]


@pytest.mark.parametrize(
    ("precision", "in_the_program"),
    [("default", "DEFAULT"), ("tensorfloat32", "HIGH"), ("float32", "HIGHEST")],
)
def test_all_products_of_step_and_evaluation_have_the_configs_precision(
    npz, precision, in_the_program
):
    experiment = build(tiny_config(npz, matmul_precision=precision))
    state, totals, *data, index, valid = experiment.step_shapes()
    rows = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in (index, valid)]
    (evaluator, _) = experiment.evaluators(16).values()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    programs = [
        jax.jit(experiment.step_fn(phase)).lower(state, totals, *data, *rows)
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


def test_each_split_is_evaluated_under_its_own_name(npz):
    experiment = build(tiny_config(npz))
    arrays = np.load(npz)
    for split, evaluator in experiment.evaluators(16).items():
        images, labels = evaluator._data
        np.testing.assert_array_equal(images, arrays[f"{split}_images"])
        np.testing.assert_array_equal(labels, arrays[f"{split}_labels"])
    assert list(experiment.evaluators(16)) == ["test", "val"]
