"""Runs that take over the network of another run, for other classes or other images."""

import dataclasses
import io
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from purenoise_jax.analysis.run_tables import provenance
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.config.run_record import CONFIG_FILE, saved_config
from purenoise_jax.config.validation import validate
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.runtime import files
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.runtime.files import read_json
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.resume import find_restore_point
from tests.tiny import tiny_config, write_npz

HEAD = ("params/head/kernel", "params/head/bias")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run with four classes and a checkpoint after two epochs, whose arrays are all changed."""
    return write_source(tmp_path_factory.mktemp("source"))


def write_source(folder, **fields):
    config = plain(write_npz(folder / "four.npz"), **fields)
    experiment = build(config)
    state = jax.tree_util.tree_map_with_path(
        lambda path, x: x + (3 if "aux_" in jax.tree_util.keystr(path) else 2), experiment.init()
    )
    record = {
        **experiment.identity,
        "class_names": experiment.dataset.class_names,
        "epoch": 2.0,
        "steps_per_epoch": experiment.steps_per_epoch,
    }
    (folder / "run").mkdir()
    files.write_json(folder / "run" / CONFIG_FILE, saved_config(config))
    checkpoints = Checkpoints(folder / "run")
    checkpoints.prepare()
    checkpoints.save(state.replace(step=np.int32(6)), record)
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of plain training with four classes."""
    folder = tmp_path_factory.mktemp("trained")
    train_and_evaluate(plain(write_npz(folder / "four.npz")), folder / "run")
    return folder


def plain(npz, **fields):
    config = tiny_config(npz, num_epochs=2, **{"checkpoint.epochs": (), "model.norm": "bn"})
    del config.phases["deferred"]
    config.update_from_flattened_dict(fields)
    return config


def taken_over(npz, run, **fields):
    return plain(npz, init_from=str(run), init_epoch=0, **fields)


def begun(config, workdir, class_names=None):
    """The state with which a run begins, by name, and its origin."""
    experiment = build(config)
    if class_names is not None:
        dataset = dataclasses.replace(experiment.dataset, class_names=class_names)
        experiment = dataclasses.replace(experiment, dataset=dataset)
    point = find_restore_point(
        experiment,
        Checkpoints(workdir),
        init_from=config.init_from,
        init_epoch=0,
        init_aux_bn=config.init_aux_bn,
    )()
    return {n: np.asarray(x) for n, x in by_name(point.state).items()}, point.init_from


def stored(run):
    """The arrays of its newest checkpoint, and its state before the first step."""
    experiment = build(load_runs([run])[0].config)
    checkpoints = Checkpoints(run)
    state = checkpoints.restore(checkpoints.newest(), experiment.target())
    return {n: np.asarray(x) for n, x in by_name(state).items()}


def first(config):
    return {n: np.asarray(x) for n, x in by_name(build(config).init()).items()}


def test_a_head_for_other_classes_is_re_initialised_and_all_else_taken_over(source, tmp_path):
    npz = write_npz(tmp_path / "six.npz", counts=(12, 9, 6, 5, 4, 3))
    config = taken_over(npz, source / "run")
    found, origin = begun(config, tmp_path / "run")
    there, random = stored(source / "run"), first(plain(npz))
    assert found.keys() == random.keys()
    for name, array in found.items():
        network = name.startswith(("params/", "batch_stats/")) and name not in HEAD
        # Momentum and step are those of a new run.
        np.testing.assert_array_equal(array, (there if network else random)[name], name)
    assert any((there[n] != random[n]).any() for n in ("params/conv/kernel",))
    assert origin["head"] == "head re-initialised: 4 classes there, 6 here"
    assert (origin["epoch"], origin["weights_after_epoch"]) == (0, 2.0)
    assert not (tmp_path / "run").exists(), "nothing is written yet"


def test_more_images_of_the_same_classes_keep_the_head(source, tmp_path):
    npz = write_npz(tmp_path / "grown.npz", counts=(30, 20, 9, 5))
    found, origin = begun(taken_over(npz, source / "run"), tmp_path / "run")
    there = stored(source / "run")
    for name in (*HEAD, "params/conv/kernel", "batch_stats/norm/mean"):
        np.testing.assert_array_equal(found[name], there[name], name)
    assert origin["head"] == "with its head" and found["step"] == 0
    assert not found["opt_state/1/trace/head/kernel"].any()


def test_classes_of_other_names_get_a_new_head(source, tmp_path):
    config = taken_over(source / "four.npz", source / "run")
    found, origin = begun(config, tmp_path / "run", ("0", "1", "2", "eight"))
    random = first(config)
    for name in HEAD:
        np.testing.assert_array_equal(found[name], random[name])
    assert origin["head"] == "head re-initialised: other classes, such as 3 there, eight here"


def test_other_layers_for_noise_and_memories_begin_as_they_do_with_a_file(source, tmp_path):
    config = taken_over(
        source / "four.npz",
        source / "run",
        init_aux_bn="copy",
        **{"model.norm": "aux_bn", "phases.initial.methods": ("ema",)},
    )
    found, _ = begun(config, tmp_path / "run")
    np.testing.assert_array_equal(found["params/norm/aux_scale"], found["params/norm/scale"])
    np.testing.assert_array_equal(found["batch_stats/norm/aux_var"], found["batch_stats/norm/var"])
    averages = [n for n in found if n.startswith("extra/ema/params")]
    assert averages
    for name in averages:
        np.testing.assert_array_equal(found[name], found[name.removeprefix("extra/ema/")])


def test_layers_for_noise_that_were_trained_are_not_replaced_by_copies(tmp_path):
    source = write_source(tmp_path, **{"model.norm": "aux_bn"})
    config = taken_over(
        source / "four.npz", source / "run", init_aux_bn="copy", **{"model.norm": "aux_bn"}
    )
    found, _ = begun(config, tmp_path / "next")
    there = stored(source / "run")
    for name in ("params/norm/aux_scale", "batch_stats/norm/aux_var"):
        np.testing.assert_array_equal(found[name], there[name])
        assert (found[name] != found[name.replace("aux_", "")]).all()


def test_another_network_and_other_channels_are_refused(source, tmp_path):
    with pytest.raises(CheckpointError, match=r'model: "tiny" there, "resnet8" here'):
        begun(taken_over(source / "four.npz", source / "run", **{"model.name": "resnet8"}), "x")
    # The features of this network grow with the images; those of others do not.
    with np.load(source / "four.npz") as arrays:
        gray = {n: a[..., :1] if n.endswith("images") else a for n, a in arrays.items()}
        np.savez(tmp_path / "gray.npz", **gray)
    message = r"has another network, 1 arrays differ: params/conv/kernel: float32\[3, 3, 3, 8\]"
    with pytest.raises(CheckpointError, match=message):
        begun(taken_over(tmp_path / "gray.npz", source / "run"), "x")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        begun(taken_over(source / "four.npz", tmp_path / "absent"), "x")


def test_a_damaged_checkpoint_is_refused(source, tmp_path):
    shutil.copytree(source / "run", tmp_path / "source")
    for path in (tmp_path / "source/checkpoints").glob("*/record.json"):
        path.write_text("{}")
    with pytest.raises(CheckpointError, match="none of 1 checkpoints can be used"):
        begun(taken_over(source / "four.npz", tmp_path / "source"), "x")


def test_two_origins_of_weights_are_refused():
    config = taken_over("x.npz", "there", **{"model.pretrained": "w.safetensors"})
    with pytest.raises(ConfigError, match=r"^init_from=there with init_epoch=0 and model\.pret"):
        validate(config)


@pytest.mark.slow
def test_such_a_run_trains_says_where_it_began_and_continues(trained, tmp_path):
    npz = write_npz(tmp_path / "six.npz", counts=(12, 9, 6, 5, 4, 3))
    config = taken_over(npz, trained / "run")
    screen = io.StringIO()
    display = Display(console=Console(file=screen, width=400), active=False)
    train_and_evaluate(config, tmp_path / "run", display)
    text = screen.getvalue()
    assert "after epoch 2; head re-initialised: 4 classes there, 6 here" in text
    summary = read_json(tmp_path / "run/summary.json")
    assert summary["steps"] == 6 and summary["init_from"]["workdir"] == str(trained / "run")
    config.num_epochs, config.init_from = 3, ""
    state = train_and_evaluate(config, tmp_path / "run")
    assert int(state.step) == 9
    row = next(r for r in provenance(load_runs([tmp_path / "run"])[0]) if r.name == "started from")
    assert "run after epoch 2; the network, head re-initialised" in row.text
    with pytest.raises(CheckpointError, match="but this run began from"):
        config.init_from = str(tmp_path)
        train_and_evaluate(config, tmp_path / "run")


@pytest.mark.slow
def test_a_run_whose_images_have_grown_is_refused_with_the_way_on(trained, tmp_path):
    """To continue would be neither run; in mid-schedule of another run it is refused as well."""
    shutil.copytree(trained / "run", tmp_path / "run")
    npz = write_npz(tmp_path / "grown.npz", counts=(30, 20, 9, 5))
    with pytest.raises(CheckpointError, match=r"--config\.init_epoch=0 starts with .*class_counts"):
        train_and_evaluate(plain(npz, num_epochs=3), tmp_path / "run")
    middle = plain(npz, num_epochs=3, init_from=str(trained / "run"), init_epoch=2)
    with pytest.raises(CheckpointError, match=r"init_epoch=0 takes over.*class_counts"):
        train_and_evaluate(middle, tmp_path / "new")
    assert not (tmp_path / "new").exists()
