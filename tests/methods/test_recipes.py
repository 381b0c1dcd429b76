"""Methods: arguments from signatures, requirements on the model, and combinations."""

import dataclasses
import subprocess
import sys
from typing import Annotated

import jax
import numpy as np
import pytest

from purenoise_jax.checkpoint.frozen_networks import digest
from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.config.fields import FIELDS, default_config
from purenoise_jax.config.validation import validate
from purenoise_jax.methods import METHODS, build_recipe
from purenoise_jax.methods.arguments import arguments_of
from purenoise_jax.runtime.constraints import Real
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.runtime.files import read_json
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from tests.linear_step import STATS
from tests.tiny import tiny_config, write_npz

# A user's config file that defines a method of its own.
OWN_METHOD = """
import dataclasses
from typing import Annotated

from purenoise_jax.runtime.constraints import Real
from purenoise_jax.methods import METHODS
from purenoise_jax.methods.recipe import cross_entropy
from tests.tiny import tiny_config


def half_loss(recipe, stats, *, factor: Annotated[float, Real(0, 1), "of the loss"] = 0.5):
    return dataclasses.replace(recipe, loss=lambda z, y: factor * cross_entropy(z, y))


METHODS["half_loss"] = half_loss


def get_config(path):
    config = tiny_config(path, num_epochs=2, **{"optimizer.milestones": (), "checkpoint.epochs": ()})
    del config.phases["deferred"]
    config.phases.initial.methods = ("half_loss",)
    return config
"""


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.mark.slow
def test_a_method_in_a_users_file_trains_with_its_argument(npz, tmp_path):
    (tmp_path / "mine.py").write_text(OWN_METHOD)
    command = [
        sys.executable,
        "-m",
        "purenoise_jax.main",
        "--config",
        f"{tmp_path / 'mine.py'}:{npz}",
    ]

    def run(name, *more):
        workdir = ["--workdir", str(tmp_path / name)]
        return subprocess.run([*command, *workdir, *more], capture_output=True, text=True)

    losses = {}
    for factor in ("1.0", "0.25"):
        done = run(
            factor,
            f"--config.method.half_loss.factor={factor}",
            "--config.optimizer.learning_rate=1e-30",
        )
        assert done.returncode == 0, done.stderr
        losses[factor] = read_json(tmp_path / factor / "config.json")["fixed"][
            "method.half_loss.factor"
        ]
    assert losses == {"1.0": 1.0, "0.25": 0.25}
    refused = run("bad", "--config.method.half_loss.factor=2")
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: method.half_loss.factor=2.0 is not legal; legal: a number in"
    )
    assert "method.half_loss.factor=0.5" in run("help", "--help").stdout


def test_every_argument_is_a_field_with_the_default_of_its_signature():
    config = default_config()
    for name, method in METHODS.items():
        apply = getattr(method, "apply", method)
        for argument, found in arguments_of(apply).items():
            field = FIELDS[f"method.{name}.{argument}"]
            assert (field.default, field.legal, field.help, field.absent) == found
            assert field.fixed
            assert field.legal.allows(field.default)
            assert config.method[name][argument] == found.default
    with pytest.raises(KeyError):
        FIELDS["method.erm.argument"]
    assert "method.open" not in FIELDS and "method" not in FIELDS


def test_an_argument_without_legal_values_or_default_is_a_type_error():
    def bare(recipe, stats, *, factor: float = 1.0):
        return recipe

    def without_default(recipe, stats, *, factor: Annotated[float, Real(0), "help"]):
        return recipe

    for method in (bare, without_default):
        with pytest.raises(TypeError, match=f"{method.__name__}: factor must be Annotated"):
            arguments_of(method)


def test_a_method_refuses_a_model_without_the_head_that_it_needs(npz, tmp_path):
    config = tiny_config(npz, **{"model.name": "resnet8", "phases.deferred.methods": ("ldam",)})
    with pytest.raises(
        ConfigError,
        match=r"model\.head=linear, but the phase of ldam from epoch 2 needs model\.head=cosine",
    ):
        build(config)
    config.model.head = "cosine"
    assert list(build(config).target().params["head"]) == ["kernel"]


def test_two_methods_that_set_the_same_field_are_refused_by_name(monkeypatch):
    def other(recipe, stats):
        return dataclasses.replace(recipe, loss=lambda logits, target: logits.sum(-1))

    monkeypatch.setitem(METHODS, "other", other)
    with pytest.raises(ConfigError, match="methods ldam and other both set loss of a step"):
        build_recipe(["ldam", "other"], STATS, {})
    with pytest.raises(ConfigError, match="methods other and ldam both set loss of a step"):
        build_recipe(["other", "sam", "ldam"], STATS, {})


def test_methods_that_extend_a_field_or_leave_it_unchanged_may_be_combined():
    recipe = build_recipe(["ldam", "drw", "sam", "ema", "open"], STATS, {})
    assert len(recipe.transforms) == 1 and set(recipe.memory) == {"ema"}
    assert recipe.requires == {"head": "cosine"} and recipe.weighted_mean
    # Both draw classes evenly.
    assert build_recipe(["rs", "open"], STATS, {}).class_probs.tolist() == [np.float32(1 / 3)] * 3


@pytest.mark.slow
def test_methods_train_together(npz, tmp_path):
    methods = ("ldam", "drw", "sam", "ema")
    config = tiny_config(
        npz,
        **{"model.head": "cosine", "phases.deferred.methods": methods, "num_epochs": 3,
           "optimizer.milestones": (), "checkpoint.every_steps": 1, "checkpoint.keep": 9},
    )  # fmt: skip
    validate(config)
    uninterrupted = train_and_evaluate(config, tmp_path / "run")
    assert int(uninterrupted.extra["ema"]["steps"]) == 3
    averaged = by_name(uninterrupted.extra["ema"]["params"])
    assert any((averaged[k] != v).any() for k, v in by_name(uninterrupted.params).items())
    # The run resumes bitwise, including the memory of the methods.
    for step in ("8", "9"):
        (tmp_path / "run/checkpoints" / step).rename(tmp_path / step)
    resumed = train_and_evaluate(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed, uninterrupted)


@pytest.mark.slow
def test_a_frozen_network_is_part_of_the_identity_of_a_run(npz, tmp_path):
    short = {"num_epochs": 2, "optimizer.milestones": (), "checkpoint.epochs": ()}
    plain = tiny_config(npz, **short)
    del plain.phases["deferred"]
    source = train_and_evaluate(plain, tmp_path / "erm")
    config = tiny_config(npz, **{**short, "frozen.g": str(tmp_path / "erm")})
    del config.phases["deferred"]
    config.phases.initial.methods = ("m2m",)
    experiment = build(config)
    jax.tree.map(np.testing.assert_array_equal, experiment.frozen["g"]["params"], source.params)
    train_and_evaluate(config, tmp_path / "run")
    record = read_json(tmp_path / "run/checkpoints/6/record.json")
    assert record["frozen"] == {"g": digest(experiment.frozen["g"])}
    # The run resumes if its network is in another folder, but not with another network.
    (tmp_path / "erm").rename(tmp_path / "first")
    config.num_epochs, config.frozen.g = 3, str(tmp_path / "first")
    train_and_evaluate(config, tmp_path / "run")
    plain.seed = 1
    train_and_evaluate(plain, tmp_path / "erm")
    config.num_epochs, config.frozen.g = 4, str(tmp_path / "erm")
    with pytest.raises(CheckpointError, match="is of another run: frozen"):
        train_and_evaluate(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.frozen.update(g="nowhere"),
            "frozen.g=.*nowhere has no checkpoint",
        ),
        (
            lambda c: c.model.update(name="resnet8"),
            "frozen.g=.* is of another run: model",
        ),
    ],
)
def test_a_missing_or_unsuitable_network_is_refused(npz, tmp_path, change, message):
    short = {"num_epochs": 1, "optimizer.milestones": (), "checkpoint.epochs": ()}
    plain = tiny_config(npz, **short)
    del plain.phases["deferred"]
    train_and_evaluate(plain, tmp_path / "erm")
    config = tiny_config(npz, **{**short, "frozen.g": str(tmp_path / "erm")})
    del config.phases["deferred"]
    config.phases.initial.methods = ("m2m",)
    change(config)
    with pytest.raises(CheckpointError, match=message):
        build(config)
