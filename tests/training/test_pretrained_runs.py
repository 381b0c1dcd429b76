"""Runs that start with a file of weights: their first state, identity, header and continuation."""

from functools import partial

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.config.identity import config_hash
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.inference.network import Network
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.models import MODELS, NORMS
from purenoise_jax.models.pretrained import shapes_of
from purenoise_jax.models.resnet import ResNet
from purenoise_jax.models.torchvision_names import torch_name
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from tests.models.golden_values import from_torch, recipe, to_torch
from tests.notes import Notes
from tests.tiny import tiny_config, write_npz

safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra weights")
NARROW = partial(ResNet, blocks=(1,), width=4, small_images=True)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A network of these tests alone."""
    monkeypatch.setitem(MODELS, "narrow", NARROW)


def write_weights(path, classes=4, shift=0):
    network = NARROW(num_classes=classes, norm=NORMS["bn"])
    shapes = flatten_dict(shapes_of(network, (8, 8, 3)))
    state = {}
    for variable, leaf in shapes.items():
        name = torch_name(network, variable[1:])
        state[name] = recipe(name, to_torch(np.empty(leaf.shape)).shape) + np.float32(shift)
    safetensors.save_file({n: np.ascontiguousarray(v) for n, v in state.items()}, path)
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pretrained")
    write_npz(path / "tiny.npz")
    return path


def config_of(folder, file="w.safetensors", **fields):
    config = tiny_config(
        folder / "tiny.npz",
        **{"model.name": "narrow", "num_epochs": 2, "phases.deferred.start_epoch": 1},
    )
    del config.phases["deferred"]
    config.checkpoint.epochs = ()
    if file:
        config.model.pretrained = str(folder / file)
    config.update_from_flattened_dict(fields)
    return config


def arrays_of(state):
    return {name: np.asarray(leaf) for name, leaf in by_name(state).items()}


def expected_of(state):
    """The first convolution, the first norm and the head, in our names and layout."""
    return {
        "params/conv0/kernel": from_torch(state["conv1.weight"]),
        "params/bn0/scale": state["bn1.weight"],
        "batch_stats/bn0/mean": state["bn1.running_mean"],
        "batch_stats/stage1_block0/bn2/var": state["layer1.0.bn2.running_var"],
        "params/head/fc/kernel": state["fc.weight"].T,
        "params/head/fc/bias": state["fc.bias"],
    }


def test_a_run_begins_with_the_weights_and_nothing_else_of_it_differs(folder):
    state = write_weights(folder / "w.safetensors")
    plain, experiment = (build(config_of(folder, file)) for file in ("", "w.safetensors"))
    found, random = arrays_of(experiment.init()), arrays_of(plain.init())
    for name, array in expected_of(state).items():
        np.testing.assert_array_equal(found[name], array)
    assert found.keys() == random.keys()
    for name, array in found.items():
        assert array.dtype == random[name].dtype
        taken = name.startswith(("params/", "batch_stats/"))
        assert np.array_equal(array, random[name]) != taken, name
    target = jax.tree.map(lambda x: x.sharding, experiment.target())
    assert jax.tree.map(lambda x: x.sharding, experiment.init()) == target


def test_memories_begin_with_the_weights_and_a_reset_head_is_that_of_the_file(folder):
    state = write_weights(folder / "w.safetensors")
    config = config_of(folder, **{"phases.initial.methods": ("ema",)})
    config.phases.second = make_phase(1, ("ema",), reset=("head",))
    experiment = build(config)
    first = experiment.init()
    kernel = expected_of(state)["params/head/fc/kernel"]
    averages = [
        x
        for name, x in arrays_of(first).items()
        if name.startswith("extra/") and name.endswith("head/fc/kernel")
    ]
    assert averages
    for average in averages:
        np.testing.assert_array_equal(average, kernel)
    moved = first.replace(params=jax.tree.map(lambda x: x + 1, first.params))
    again = arrays_of(experiment.enter(experiment.phases[1], moved))
    np.testing.assert_array_equal(again["params/head/fc/kernel"], kernel)
    np.testing.assert_array_equal(
        again["params/conv0/kernel"], expected_of(state)["params/conv0/kernel"] + 1
    )


def test_a_head_for_other_classes_is_drawn_as_without_a_file(folder):
    write_weights(folder / "nine.safetensors", classes=9)
    experiment = build(config_of(folder, "nine.safetensors"))
    found, random = (arrays_of(e.init()) for e in (experiment, build(config_of(folder, ""))))
    for name in ("params/head/fc/kernel", "params/head/fc/bias"):
        np.testing.assert_array_equal(found[name], random[name])
    assert "the head is drawn anew: 9 classes there, 4 here" in experiment.pretrained.note


@pytest.mark.parametrize("how", ["fresh", "copy"])
def test_auxiliary_layers_are_fresh_or_copies(folder, how):
    state = write_weights(folder / "w.safetensors")
    config = config_of(folder, **{"model.norm": "aux_bn", "init_aux_bn": how})
    found = build(config).init()
    scale, mean = found.params["bn0"]["aux_scale"], found.batch_stats["bn0"]["aux_mean"]
    copied = how == "copy"
    np.testing.assert_array_equal(scale, state["bn1.weight"] if copied else np.ones(4))
    np.testing.assert_array_equal(mean, state["bn1.running_mean"] if copied else np.zeros(4))
    buffers = [
        x.unsafe_buffer_pointer() for x in jax.tree.leaves((found.params, found.batch_stats))
    ]
    assert len(set(buffers)) == len(buffers), "no array is donated twice"


def test_the_file_is_part_of_the_identity_by_its_content_and_not_by_its_path(folder):
    write_weights(folder / "w.safetensors")
    (folder / "other.safetensors").write_bytes((folder / "w.safetensors").read_bytes())
    configs = [config_of(folder, file) for file in ("w.safetensors", "other.safetensors")]
    first, second = (build(config).identity["pretrained"] for config in configs)
    assert first == second and len(first) == 64
    assert len({config_hash(config) for config in configs}) == 1
    assert build(config_of(folder, "")).identity["pretrained"] is None


@pytest.mark.slow
def test_a_run_continues_with_the_same_file_only_and_is_read_without_it(folder, tmp_path):
    write_weights(folder / "w.safetensors")
    write_weights(folder / "changed.safetensors", shift=1)
    run, notes = tmp_path / "run", Notes()
    train_and_evaluate(config_of(folder, num_epochs=1), run, notes)
    record = Checkpoints(run).record(Checkpoints(run).newest())
    assert record["pretrained"] == build(config_of(folder)).identity["pretrained"]
    for file in ("", "changed.safetensors"):
        with pytest.raises(CheckpointError, match="is of another run: pretrained: "):
            train_and_evaluate(config_of(folder, file), run)
    # Another run may start from this one, with or without the file.
    for file in ("", "w.safetensors"):
        fields = {"init_from": str(run), "init_epoch": 1}
        train_and_evaluate(config_of(folder, file, **fields), tmp_path / f"next{file}")
    with pytest.raises(CheckpointError, match="pretrained: "):
        config = config_of(folder, "changed.safetensors", init_from=str(run), init_epoch=1)
        train_and_evaluate(config, tmp_path / "refused")
    train_and_evaluate(config_of(folder), run)
    (folder / "w.safetensors").unlink()
    (loaded,) = load_runs([run])
    assert Network(loaded).evaluate(np.zeros((2, 8, 8, 3), np.float32)).logits.shape == (2, 4)


def test_a_file_that_does_not_fit_is_refused_before_anything_is_written(folder, tmp_path):
    write_weights(folder / "w.safetensors")
    config = config_of(folder, **{"model.name": "resnet8"})
    with pytest.raises(ConfigError, match=r"^model\.pretrained=.*only ResNets for large images"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
