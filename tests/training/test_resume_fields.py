"""Fields that a started run may change: each is declared, and the declaration is kept."""

import math
from typing import Annotated

import pytest
from ml_collections import ConfigDict

from purenoise_jax.chaos.invalid_configs import field_paths, with_value
from purenoise_jax.config.field import Field
from purenoise_jax.config.fields import _STATIC_FIELDS, FIELDS, default_config, field_of, flatten
from purenoise_jax.config.identity import config_hash, fixed_fields
from purenoise_jax.config.run_record import CONFIG_FILE, refuse_other_run, saved_config
from purenoise_jax.inference.runs import load_runs
from purenoise_jax.methods import METHODS
from purenoise_jax.runtime.constraints import (
    Epochs,
    Integer,
    Names,
    OneOf,
    PerChannel,
    PerClass,
    Real,
    Switch,
    Text,
)
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.runtime.files import read_json, write_json

# What a run may change: how long it is, where it runs and reads from, what it keeps and shows. Data
# from another path are told by their content and the choice of images.
FREE = {
    "num_epochs", "num_devices", "steps_per_call", "init_from", "init_epoch", "init_aux_bn",
    "data.path", "data.train_list", "data.val_list", "data.test_list", "data.indices",
    "data.feed", "data.workers", "data.on_bad",
    "model.pretrained", "checkpoint.epochs", "checkpoint.every_epochs",
    "frozen.g", "checkpoint.every_steps", "checkpoint.keep", "fresh", "report", "eval.every_epochs", "eval.batch_size",
    "checkpoint.best", "eval.test", "eval.train", "eval.patience",
}  # fmt: skip


def usual(path):
    """The default, and what it comes to where it is left open."""
    return (field_of(path).default, fixed_fields(config_using(path)).get(path))


def another(path):
    """A legal value other than the default."""
    field = field_of(path)
    match field.legal:
        case Switch():
            value = not field.default
        case Integer(low, high):
            value = field.default + 1 if field.default < high else low
        case Real(low, high):
            value = (low + high) / 2 if math.isfinite(high) else field.default + 1.5
            value = value if value != field.default else value / 2
        case OneOf(names) | Names(names):
            value = next(name for name in reversed(list(names)) if name not in usual(path))
            value = value if isinstance(field.legal, OneOf) else (value,)
        case PerChannel():
            value = (0.25, 0.5, 0.75)
        case Epochs() | PerClass():
            value = (7, 8)
        case Text():
            value = "another"
    assert field.legal.allows(value) and value != field.default, path
    return value


def test_every_field_is_declared_fixed_or_free():
    assert {path for path, field in FIELDS.items() if not field.fixed} == FREE
    for path in field_paths():
        assert type(field_of(path).fixed) is bool


def config_using(path):
    """The default config; for an argument of a method, one with a phase that names the method."""
    config = default_config()
    if path.startswith("method."):
        config.phases.initial.methods = (path.split(".")[1],)
    return config


@pytest.mark.parametrize("path", field_paths())
def test_a_changed_field_is_refused_unless_it_is_free(path, tmp_path):
    config, value = config_using(path), another(path)
    workdir = tmp_path / "run"
    workdir.mkdir()
    write_json(workdir / CONFIG_FILE, saved_config(config))
    refuse_other_run(config, workdir)
    changed = with_value(config, path, value)
    before = (workdir / CONFIG_FILE).read_bytes()
    if path in FREE:
        refuse_other_run(changed, workdir)
        assert path == "num_epochs" or config_hash(changed) == config_hash(config)
    else:
        with pytest.raises(CheckpointError) as refusal:
            refuse_other_run(changed, workdir)
        message = str(refusal.value)
        there = fixed_fields(config).get(path, field_of(path).default)
        there, here = (list(v) if isinstance(v, tuple) else v for v in (there, value))
        assert f"{path}: {there!r} there, {here!r} here" in message, message
        assert config_hash(changed) != config_hash(config)
    assert (workdir / CONFIG_FILE).read_bytes() == before
    assert [file.name for file in workdir.iterdir()] == [CONFIG_FILE]


@pytest.mark.parametrize(
    ("there", "here", "same"),
    [
        ((3, (2,)), (5, (2, 4)), True),
        ((3, ()), (4, (3,)), True),
        ((200, (160, 180)), (100, ()), True),
        ((4, (3,)), (5, (3,)), True),
        ((4, (3,)), (5, (2, 4)), False),
        ((4, (2, 3)), (5, (3,)), False),
        ((200, (160, 180)), (200, (160,)), False),
    ],
)
def test_drops_that_neither_run_has_reached_may_still_be_planned(there, here, same, tmp_path):
    """So that a run of a few epochs can be given more, with the drops that belong to them."""
    configs = []
    for num_epochs, milestones in (there, here):
        config = default_config()
        config.num_epochs, config.optimizer.milestones = num_epochs, milestones
        configs.append(config)
    write_json(tmp_path / CONFIG_FILE, saved_config(configs[0]))
    if same:
        refuse_other_run(configs[1], tmp_path)
    else:
        with pytest.raises(CheckpointError, match=r"optimizer\.milestones: .* there, .* here"):
            refuse_other_run(configs[1], tmp_path)


def test_a_phase_more_or_less_is_refused(tmp_path):
    config = default_config()
    write_json(tmp_path / CONFIG_FILE, saved_config(config))
    config.phases.deferred = ConfigDict({"start_epoch": 160, "methods": ("open",)})
    with pytest.raises(
        CheckpointError, match=r"phases\.deferred\.methods: None there, \['open'\] here"
    ):
        refuse_other_run(config, tmp_path)
    assert len(flatten(config)) == len(field_paths()) + 2


def test_arguments_of_methods_that_no_phase_names_are_no_part_of_a_run():
    config = default_config()
    assert not [path for path in fixed_fields(config) if path.startswith("method.")]
    changed = with_value(config, "method.open.delta", 0.5)
    assert config_hash(changed) == config_hash(config)
    config.phases.initial.methods = ("open",)
    used = {path.split(".")[1] for path in fixed_fields(config) if path.startswith("method.")}
    assert used == {"open"}


def with_argument(recipe, stats, *, argument: Annotated[tuple, Epochs(), "added", (1,)] = (2,)):
    return recipe


@pytest.mark.parametrize("path", ["new_field", "method.erm.argument"])
def test_a_run_from_before_a_field_was_added_goes_on_with_its_hash(path, tmp_path, monkeypatch):
    config = default_config()
    write_json(tmp_path / CONFIG_FILE, saved_config(config))
    before = config_hash(config)
    # The default is another than the value that older runs have.
    added = Field((2,), "an added field", Epochs(), absent=(1,))
    monkeypatch.setitem(_STATIC_FIELDS, "new_field", added)
    monkeypatch.setitem(METHODS, "erm", with_argument)
    same = {"new_field": (1,), "method.erm.argument": (1,)}
    old = default_config()
    for name, value in same.items():
        old = with_value(old, name, value)
    refuse_other_run(old, tmp_path)
    assert config_hash(old) == before
    changed = with_value(old, path, (2,))
    with pytest.raises(CheckpointError, match=rf"{path}: \[1\] there, \[2\] here"):
        refuse_other_run(changed, tmp_path)
    assert config_hash(changed) != before


def test_a_run_with_a_field_that_is_gone_goes_on_and_is_read(tmp_path):
    config = with_value(default_config(), "phases.initial.methods", ("sam",))
    saved = saved_config(config)
    assert saved["fixed"]["method.sam.asymmetry"] == "none"
    saved["config"]["method"]["sam"]["asymmetry"] = "none"
    write_json(tmp_path / CONFIG_FILE, saved)
    refuse_other_run(config, tmp_path)
    (run,) = load_runs([tmp_path])
    assert config_hash(run.config) == config_hash(config)
    saved["fixed"]["method.sam.asymmetry"] = "weighted_ascent"
    saved["config"]["method"]["sam"]["asymmetry"] = "weighted_ascent"
    write_json(tmp_path / CONFIG_FILE, saved)
    with pytest.raises(CheckpointError, match="'weighted_ascent' there, 'none' here"):
        refuse_other_run(config, tmp_path)
    with pytest.raises(ConfigError, match=r"method\.sam\.asymmetry is not a config field"):
        load_runs([tmp_path])


def test_a_run_whose_network_had_another_field_is_read(tmp_path):
    for methods, network in ((("erm",), ""), (("m2m",), "runs/erm")):
        config = with_value(default_config(), "phases.initial.methods", methods)
        saved = saved_config(config)
        del saved["config"]["frozen"]
        saved["config"]["method"]["m2m"]["network"] = network
        write_json(tmp_path / CONFIG_FILE, saved)
        refuse_other_run(config, tmp_path)
        (run,) = load_runs([tmp_path])
        assert run.config.frozen.g == network and "network" not in run.config.method.m2m
        assert config_hash(run.config) == config_hash(config)


def test_a_config_that_lists_unused_methods_is_that_of_the_same_run(tmp_path):
    """As the first release wrote it: with the arguments of all methods."""
    config = default_config()
    saved = saved_config(config)
    flat = flatten(config)
    saved["fixed"] |= {path: flat[path] for path in flat if path.startswith("method.")}
    write_json(tmp_path / CONFIG_FILE, saved)
    assert "method.open.delta" in read_json(tmp_path / CONFIG_FILE)["fixed"]
    refuse_other_run(config, tmp_path)


def test_a_method_is_named_in_fields_as_in_phases():
    """`used_fields` goes by the name, so that another would leave arguments uncompared."""
    assert {path.split(".")[1] for path in FIELDS if path.startswith("method.")} <= set(METHODS)
