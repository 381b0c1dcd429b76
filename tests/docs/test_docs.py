"""The documents: their code is run as it stands there."""

import dataclasses
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from purenoise_jax.config.fields import default_config, make_phase, validate
from purenoise_jax.methods import METHODS, build_recipe
from purenoise_jax.methods.recipe import Recipe, cross_entropy
from purenoise_jax.training.loop import train_and_evaluate
from tests.linear_step import STATS
from tests.tiny import tiny_config, write_npz

DOCS = Path(__file__).parents[2] / "docs"


def code_of(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def focal():
    exec(compile(code_of("add_a_method.md")[0], "add_a_method.md", "exec"), {})
    yield METHODS["focal"]
    del METHODS["focal"]


def test_the_method_of_the_page_is_focal_loss(focal):
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(6, 3)), np.eye(3)[[0, 1, 2, 0, 1, 2]]
    p = (np.exp(logits) * target).sum(1) / np.exp(logits).sum(1)
    for gamma in (0.0, 0.5, 2.0):
        loss = build_recipe(["focal"], STATS, {"focal": {"gamma": gamma}}).loss
        found = loss(jnp.asarray(logits, jnp.float32), jnp.asarray(target, jnp.float32))
        np.testing.assert_allclose(found, -((1 - p) ** gamma) * np.log(p), rtol=1e-5)
    plain = build_recipe(["focal"], STATS, {"focal": {"gamma": 0.0}}).loss
    logits, target = (jnp.asarray(x, jnp.float32) for x in (logits, target))
    np.testing.assert_array_equal(plain(logits, target), cross_entropy(logits, target))


def test_it_trains_and_its_argument_is_a_field(focal, tmp_path):
    npz = write_npz(tmp_path / "tiny.npz")
    config = tiny_config(npz, num_epochs=1, **{"optimizer.milestones": (), "checkpoint.epochs": ()})
    config.phases = ConfigDict({"initial": make_phase(0, ("focal",))})
    assert config.method.focal.gamma == 1.0
    config.method.focal.gamma = 2.0
    validate(config)
    train_and_evaluate(config, tmp_path / "run")


def test_every_field_of_a_recipe_is_on_the_page():
    text = (DOCS / "add_a_method.md").read_text()
    assert all(f"`{field.name}`" in text for field in dataclasses.fields(Recipe))


def test_the_phase_of_the_page_is_legal():
    config = default_config()
    config.optimizer.milestones = (160, 180)
    names = {"config": config, "make_phase": make_phase}
    exec(compile(code_of("add_a_method.md")[1], "add_a_method.md", "exec"), names)
    validate(config)
    assert config.phases.retraining.start_epoch == 200
