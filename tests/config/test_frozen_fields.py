"""Networks of other runs that methods ask for: their fields, and configs that name none."""

import numpy as np
import pytest

from configs import digits_lt
from purenoise_jax.config.fields import FIELDS, default_config
from purenoise_jax.config.frozen_fields import refuse_unnamed_networks, used_networks
from purenoise_jax.config.identity import config_hash
from purenoise_jax.config.validation import validate
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import METHODS, Method, build_recipe
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.setup import is_local

HALF = np.full(3, 0.5, np.float32)
STATS = DataStats(np.array([50, 5]), (16, 16, 3), *[HALF] * 6)


@pytest.fixture
def two_more(monkeypatch):
    """Two methods beside m2m, of which one shares its network."""

    def unchanged(recipe, stats):
        return recipe

    monkeypatch.setitem(METHODS, "distil", Method(unchanged, frozen={"teacher": "open"}))
    monkeypatch.setitem(METHODS, "imitate", Method(unchanged, frozen={"g": "erm"}))


def config_of(*methods):
    config = digits_lt.get_config("method=erm")
    config.phases.initial.methods = methods
    return config


def test_every_network_that_a_method_asks_for_is_a_field(two_more):
    fields = {name: field for name, field in FIELDS.items() if name.startswith("frozen.")}
    assert fields.keys() == {"frozen.g", "frozen.teacher"}
    assert "method=erm" in fields["frozen.g"].help and "m2m, imitate" in fields["frozen.g"].help
    assert default_config().frozen.to_dict() == {"g": "", "teacher": ""}
    assert "frozen.other" not in FIELDS and "frozen" not in FIELDS


def test_networks_of_the_same_name_are_one(two_more):
    recipe = build_recipe(["distil", "m2m", "imitate"], STATS, {})
    assert recipe.frozen == ("teacher", "g")
    assert used_networks(config_of("imitate", "m2m")) == {"g": "imitate"}
    assert used_networks(config_of("erm")) == {}


def test_a_network_that_no_field_names_is_refused(two_more):
    config = config_of("m2m", "distil")
    config.frozen.g = "runs/erm"
    validate(config)
    with pytest.raises(ConfigError) as error:
        refuse_unnamed_networks(config)
    assert str(error.value).startswith("frozen.teacher='' names no run, but distil uses")
    assert "FILE:method=open --workdir runs/open`" in str(error.value)
    config.frozen.teacher = "runs/open"
    refuse_unnamed_networks(config)


def test_the_place_of_a_network_is_neither_hashed_nor_compared_between_processes():
    config = config_of("m2m")
    before = config_hash(config)
    config.frozen.g = "runs/erm"
    assert config_hash(config) == before
    assert is_local("frozen.g") and is_local("data.path") and not is_local("method.m2m.beta")
