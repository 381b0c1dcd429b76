"""Figures that need the data: the images of a training step, and the overlap of subsets."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.analysis import images, subsets
from purenoise_jax.analysis.figure_style import Options, save
from purenoise_jax.config.fields import default_config
from purenoise_jax.data.longtail import long_tail_indices
from purenoise_jax.inference.runs import Run
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.build import build
from purenoise_jax.training.train_step import Inputs, Rows
from tests.tiny import STEPS_PER_EPOCH, tiny_config, write_npz


def run_of(config, tmp_path, label="run"):
    return Run(tmp_path / label, label, config, [], None)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def images_in_a_step(run, epoch):
    """Returns the batch that the objective receives in the first step of an epoch."""
    experiment = build(run.config)
    phase, captured = experiment.phase_of(epoch), []

    def capture(recipe, networks, batch, key):
        captured.append(batch)
        return phase.recipe.objective(recipe, networks, batch, key)

    recipe = dataclasses.replace(phase.recipe, objective=capture)
    step = experiment.step_fn(dataclasses.replace(phase, recipe=recipe))
    number = jnp.int32(epoch * STEPS_PER_EPOCH)
    state = experiment.init().replace(step=number)
    index, valid = experiment.sampler.epoch(epoch, phase.recipe.class_probs)
    training = experiment.training
    inputs = Inputs(jnp.asarray(training.images), jnp.asarray(training.labels))
    # Not jitted, so that the captured batch has values.
    rows = Rows(jnp.asarray(index[0]), jnp.asarray(valid[0]))
    step(state, EpochMetrics.zero(STEPS_PER_EPOCH), inputs, rows)
    return {name: np.asarray(array)[valid[0]] for name, array in captured[0].items()}


@pytest.mark.slow
@pytest.mark.every(5)
@pytest.mark.parametrize("space", ["pixel", "raw"])
@pytest.mark.parametrize("epoch", [None, 1, 3])
def test_the_batch_is_that_of_a_training_step(npz, tmp_path, epoch, space):
    config = tiny_config(npz, **{"data.augment": ("flip", "crop"), "method.open.space": space})
    run = run_of(config, tmp_path)
    shown = images.batch_of(run, epoch)
    started = 2 if epoch is None else epoch
    assert (shown.epoch, shown.step) == (started, started * STEPS_PER_EPOCH)
    assert shown.methods == (("open",) if started >= 2 else ("erm",))
    seen = images_in_a_step(run, started)
    np.testing.assert_allclose(shown.images, seen["image"], atol=1e-6)
    np.testing.assert_array_equal(shown.labels, seen["label"])
    if started >= 2:
        np.testing.assert_array_equal(shown.noise, seen["noise_mask"])
        assert shown.noise.any() and not shown.noise.all()
    else:
        assert not shown.noise.any()
    training = run.experiment.training
    np.testing.assert_array_equal(training.labels[shown.stored], shown.labels)


def test_the_sheet_shows_the_batch_by_class(npz, tmp_path):
    run = run_of(tiny_config(npz), tmp_path)
    shown = images.batch_of(run)
    drawing = images.draw([run], Options(images=4))
    save(drawing, tmp_path, "images")
    numbers = drawing.numbers["run"]
    assert numbers["natural"] + numbers["noise"] == 16 and numbers["noise"] == shown.noise.sum()
    assert [column["class"] for column in numbers["columns"]] == sorted(set(shown.labels.tolist()))
    grid = np.array(drawing.figure.axes).reshape(-1, len(numbers["columns"]))
    assert len(grid) == 5
    assert any(0 < sum(column["noise"]) < len(column["noise"]) for column in numbers["columns"])
    stored = run.experiment.training.images
    for number, column in enumerate(numbers["columns"]):
        assert len(column["rows"]) == min(4, (shown.labels == column["class"]).sum())
        assert column["noise"] == sorted(column["noise"]), "natural images on top"
        first = stored[column["stored"][0]] / 255
        np.testing.assert_allclose(grid[0, number].images[0].get_array(), first, atol=1e-6)
        for row, place in enumerate(column["rows"], 1):
            axes = grid[row, number]
            np.testing.assert_array_equal(axes.images[0].get_array(), shown.images[place])
            assert shown.labels[place] == column["class"]
            texts = [text.get_text() for text in axes.texts if text.get_text() == "noise"]
            assert len(texts) == shown.noise[place]


@pytest.mark.slow
def test_many_classes_are_spread_over_the_frequencies(tmp_path):
    counts = tuple(range(60, 20, -1))
    npz = write_npz(tmp_path / "many.npz", counts)
    run = run_of(tiny_config(npz, **{"batch_size": 128}), tmp_path)
    drawing = images.draw([run, run_of(run.config, tmp_path, "again")], Options())
    save(drawing, tmp_path, "images")
    chosen = [column["class"] for column in drawing.numbers["run"]["columns"]]
    assert len(chosen) == 10 and chosen == sorted(chosen) and chosen[0] < 5 and chosen[-1] > 35
    assert drawing.numbers["again"] == drawing.numbers["run"]


@pytest.mark.slow
def test_a_batch_of_grey_images(tmp_path):
    config = default_config()
    config.update_from_flattened_dict(
        {"data.source": "digits", "data.imbalance_ratio": 50, "batch_size": 16, "num_epochs": 4}
    )
    drawing = images.draw([run_of(config, tmp_path)], Options())
    save(drawing, tmp_path, "images")
    assert drawing.numbers["run"]["noise"] == 0


@pytest.mark.parametrize("epoch", [-1, 4])
def test_an_epoch_that_the_run_does_not_have_is_refused(npz, tmp_path, epoch):
    with pytest.raises(ConfigError, match=r"legal: 0 \.\. 3"):
        images.batch_of(run_of(tiny_config(npz), tmp_path), epoch)


def test_data_are_built_on_one_device_whatever_the_runs_devices(npz, tmp_path):
    config = tiny_config(npz, num_devices=16)
    run = run_of(config, tmp_path)
    assert len(jax.devices()) == 8 and run.experiment.placement.mesh.size == 1
    assert run.config.num_devices == 16


@pytest.fixture
def even(tmp_path):
    npz = write_npz(tmp_path / "even.npz", (20, 20, 20, 20))
    profile = {"data.profile": "exp", "data.imbalance_ratio": 4.0}
    return run_of(tiny_config(npz, **profile), tmp_path)


def write_list(path, indices):
    path.write_text("".join(f"{i}\n" for i in indices))
    return str(path)


def test_overlaps_of_two_rules_and_a_list(even, tmp_path):
    labels = even.experiment.dataset.train_labels
    cao, first = (
        set(long_tail_indices(labels, imbalance_ratio=4, rule=rule).tolist())
        for rule in ("cao", "first")
    )
    third = set(range(30))
    file = write_list(tmp_path / "list.txt", third)
    drawing = subsets.draw([even], Options(indices=(("Cui <x>", file),)))
    save(drawing, tmp_path, "subsets")
    numbers = drawing.numbers["run"]
    assert numbers["sizes"] == {"cao": len(cao), "first": len(first), "Cui <x>": 30}
    assert numbers["pairs"] == {
        "cao & first": len(cao & first),
        "cao & Cui <x>": len(cao & third),
        "first & Cui <x>": len(first & third),
    }
    assert numbers["all"] == len(cao & first & third)
    assert numbers["only"]["Cui <x>"] == len(third - cao - first)
    texts = {text.get_text() for text in drawing.figure.axes[0].texts}
    assert "Cui <x>\n30" in texts and str(numbers["all"]) in texts


def test_without_a_list_the_title_says_so(even, tmp_path):
    drawing = subsets.draw([even], Options())
    save(drawing, tmp_path, "subsets")
    assert set(drawing.numbers["run"]["sizes"]) == {"cao", "first"}
    assert "no list was given by --indices" in drawing.figure.axes[0].get_title()


def test_subsets_that_cannot_be_compared_are_refused(even, npz, tmp_path):
    with pytest.raises(ConfigError, match="one run, got 2"):
        subsets.draw([even, even], Options())
    with pytest.raises(ConfigError, match="keeps every image"):
        subsets.draw([run_of(tiny_config(npz), tmp_path)], Options())
    with pytest.raises(ConfigError, match="cao is a rule"):
        subsets.draw([even], Options(indices=(("cao", "x"),)))
    with pytest.raises(ConfigError, match="given 2 times"):
        subsets.draw([even], Options(indices=(("a", "x"), ("b", "x"))))
    with pytest.raises(DataError, match=r"^--indices a=/\S+absent\.txt: "):
        subsets.draw([even], Options(indices=(("a", str(tmp_path / "absent.txt")),)))


@pytest.mark.skipif(
    not os.environ.get("PURENOISE_JAX_CIFAR"),
    reason="PURENOISE_JAX_CIFAR does not name a folder with the official CIFAR files",
)
def test_overlap_on_the_real_labels(tmp_path):
    config = default_config()
    config.data.update(source="cifar_dir", path=os.environ["PURENOISE_JAX_CIFAR"])
    drawing = subsets.draw([run_of(config, tmp_path)], Options())
    # Lee and Lee 2023: the lists of Cao et al. and of M2m.
    assert drawing.numbers["run"] == {
        "sizes": {"cao": 12406, "first": 12406},
        "pairs": {"cao & first": 7796},
        "all": 7796,
        "only": {"cao": 4610, "first": 4610},
    }


def test_rules_that_choose_the_same_images(tmp_path):
    npz = write_npz(tmp_path / "even.npz", (9, 9, 9, 9))
    run = run_of(tiny_config(npz, **{"data.profile": "exp", "data.imbalance_ratio": 1.0}), tmp_path)
    file = write_list(tmp_path / "list.txt", range(36))
    for indices in ((), (("all", file),)):
        drawing = subsets.draw([run], Options(indices=indices))
        save(drawing, tmp_path, "subsets")
        assert drawing.numbers["run"]["all"] == 36
