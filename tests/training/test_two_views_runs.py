"""Runs of methods with a projector: phases, resuming, and starts from networks without one."""

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.config.validation import validate
from purenoise_jax.models import MODELS
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.resume import find_restore_point
from tests.models.test_projectors import Flat
from tests.tiny import tiny_config, write_npz


@pytest.fixture(scope="module", autouse=True)
def flat():
    MODELS["flat"] = Flat
    yield
    del MODELS["flat"]


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def config_of(npz, *methods, epochs=1, **overrides):
    """One phase of all methods."""
    short = {"num_epochs": epochs, "optimizer.milestones": (), "checkpoint.epochs": (),
             "model.name": "flat", "model.norm": "bn"}  # fmt: skip
    config = tiny_config(npz, **{**short, **overrides})
    config.phases = ConfigDict({"initial": make_phase(0, methods)})
    validate(config)
    return config


@pytest.fixture(scope="module")
def plain(npz, tmp_path_factory):
    folder = tmp_path_factory.mktemp("erm") / "run"
    return folder, train_and_evaluate(config_of(npz, "erm"), folder)


@pytest.mark.slow
def test_a_start_from_a_run_without_a_projector_adds_a_new_one(npz, plain, tmp_path):
    """The auxiliary layers and the average that it lacks are added with it."""
    folder, state = plain
    start = {"init_from": str(folder), "init_epoch": 1}
    config = config_of(
        npz, "joint_ssl", "ema", epochs=2,
        **{"model.projector": "vicreg", "model.projector_width": 4, "model.norm": "aux_bn", **start},
    )  # fmt: skip
    experiment = build(config)
    where = Checkpoints(tmp_path / "run")
    found = find_restore_point(experiment, where, init_aux_bn="copy", **start)().state
    first = experiment.init()
    chex.assert_trees_all_equal(found.params["projector"], first.params["projector"])
    chex.assert_trees_all_equal(found.batch_stats["projector"], first.batch_stats["projector"])
    assert (found.opt_state[1].trace["projector"]["fc1"]["kernel"] == 0).all()
    for name in ("conv", "head"):
        chex.assert_trees_all_equal(found.params[name], state.params[name])
    np.testing.assert_array_equal(found.params["norm"]["aux_scale"], state.params["norm"]["scale"])
    chex.assert_trees_all_equal(found.extra["ema"]["params"], found.params)
    momentum = state.opt_state[1].trace["conv"]["kernel"]
    np.testing.assert_array_equal(found.opt_state[1].trace["conv"]["kernel"], momentum)
    chex.assert_trees_all_equal_shapes(found, first)


@pytest.mark.slow
def test_glmc_trains_with_other_methods_and_resumes_bitwise(npz, tmp_path):
    config = config_of(
        npz, "open", "drw", "glmc", "sam", "ema",
        **{"model.projector": "glmc", "model.norm": "dar_bn", "checkpoint.every_steps": 1,
           "checkpoint.keep": 9},
    )  # fmt: skip
    whole = train_and_evaluate(config, tmp_path / "run")
    for step in ("2", "3"):
        (tmp_path / "run/checkpoints" / step).rename(tmp_path / step)
    again = train_and_evaluate(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again, whole)


@pytest.mark.slow
def test_pre_training_without_labels_precedes_a_phase_of_plain_training(npz, tmp_path):
    config = config_of(
        npz, "simclr", epochs=2,
        **{"model.projector": "simclr", "method.simclr.supervised_weight": 0.0},
    )  # fmt: skip
    config.phases.supervised = make_phase(1, ("erm",), reset=("head",), learning_rate=0.1)
    experiment = build(config)
    first = experiment.init()
    state = train_and_evaluate(config, tmp_path)
    assert (state.params["head"]["fc"]["kernel"] != first.params["head"]["fc"]["kernel"]).any()
    half = Checkpoints(tmp_path).restore(3, experiment.target())
    chex.assert_trees_all_equal(half.params["head"], first.params["head"])
    assert (half.params["conv"]["kernel"] != first.params["conv"]["kernel"]).any()


@pytest.mark.slow
def test_m2m_takes_the_network_of_a_run_with_another_head_and_no_projector(npz, plain, tmp_path):
    config = config_of(
        npz, "ldam", "m2m",
        **{"model.head": "cosine", "frozen.g": str(plain[0]), "model.norm": "aux_bn",
           "method.m2m.confidence": 0.0},
    )  # fmt: skip
    experiment = build(config)
    assert "fc" in experiment.frozen["g"]["params"]["head"]
    chex.assert_trees_all_equal(experiment.frozen["g"]["params"], plain[1].params)
    assert "kernel" in experiment.target().params["head"]
    state = train_and_evaluate(config, tmp_path / "ldam")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    config = config_of(
        npz, "m2m", "joint_ssl",
        **{"model.projector": "vicreg", "model.projector_width": 4,
           "frozen.g": str(plain[0])},
    )  # fmt: skip
    assert "projector" not in build(config).frozen["g"]["params"]


@pytest.mark.slow
def test_m2m_may_begin_from_the_plain_run_whose_network_it_uses(npz, plain, tmp_path):
    """As in the tables, where plain training is shared."""
    start = {"frozen.g": str(plain[0]), "init_from": str(plain[0]), "init_epoch": 1}
    config = config_of(npz, "m2m", epochs=2, **start)
    train_and_evaluate(config, tmp_path)
    record = Checkpoints(tmp_path).record(Checkpoints(tmp_path).steps()[-1])
    assert record["frozen"].keys() == {"g"} and record["init_from"]["workdir"] == str(plain[0])


def test_a_method_refuses_a_network_without_its_projector(npz):
    config = config_of(npz, "glmc", **{"model.projector": "vicreg"})
    message = (
        "model.projector=vicreg, but the phase of glmc from epoch 0 needs model.projector=glmc"
    )
    with pytest.raises(ConfigError) as error:
        build(config)
    assert str(error.value) == message
