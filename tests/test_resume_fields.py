"""Which fields a started run may change: each is declared, and the declaration is kept."""

import math

import pytest
from ml_collections import ConfigDict

from purenoise_jax.bad_values import field_paths, with_value
from purenoise_jax.config import FIELDS, config_hash, default_config, field_of, flatten
from purenoise_jax.errors import ConfigError
from purenoise_jax.legal import Epochs, Integer, Names, OneOf, PerChannel, Real, Switch, Text
from purenoise_jax.resume import CONFIG_FILE, refuse_other_run, saved_config
from purenoise_jax.writer import write_json

# What a run may change: how long it is, where it runs and reads from, what it keeps and shows. Data
# from another path are told by their content and the choice of images.
FREE = {
    "num_epochs", "num_devices", "steps_per_call", "init_from", "init_epoch", "init_aux_bn",
    "data.path", "data.indices", "checkpoint.epochs", "checkpoint.every_epochs",
    "checkpoint.every_steps", "checkpoint.keep", "fresh", "report", "eval.every_epochs", "eval.batch_size",
}  # fmt: skip


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
            value = next(name for name in reversed(list(names)) if name != field.default)
            value = value if isinstance(field.legal, OneOf) else (value,)
        case PerChannel():
            value = (0.25, 0.5, 0.75)
        case Epochs():
            value = (7, 8)
        case Text():
            value = "another"
    assert field.legal.allows(value) and value != field.default, path
    return value


def test_every_field_is_declared_fixed_or_free():
    assert {path for path, field in FIELDS.items() if not field.fixed} == FREE
    for path in field_paths():
        assert type(field_of(path).fixed) is bool


@pytest.mark.parametrize("path", field_paths())
def test_a_changed_field_is_refused_unless_it_is_free(path, tmp_path):
    config, value = default_config(), another(path)
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
        with pytest.raises(ConfigError) as refusal:
            refuse_other_run(changed, workdir)
        message = str(refusal.value)
        there, here = (
            list(v) if isinstance(v, tuple) else v for v in (field_of(path).default, value)
        )
        assert f"{path}: {there!r} there, {here!r} here" in message, message
        assert config_hash(changed) != config_hash(config)
    assert (workdir / CONFIG_FILE).read_bytes() == before
    assert [file.name for file in workdir.iterdir()] == [CONFIG_FILE]


def test_a_phase_more_or_less_is_refused(tmp_path):
    config = default_config()
    write_json(tmp_path / CONFIG_FILE, saved_config(config))
    config.phases.deferred = ConfigDict({"start_epoch": 160, "methods": ("open",)})
    with pytest.raises(
        ConfigError, match=r"phases\.deferred\.methods: None there, \['open'\] here"
    ):
        refuse_other_run(config, tmp_path)
    assert len(flatten(config)) == len(field_paths()) + 2
