"""Runs saved by the first release (format 1) continue; see goldens/make_format1_runs.py."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.runtime.files import read_json
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.metric_writer import read_metrics
from tests.notes import Notes
from tests.tiny import tiny_config

FOLDER = Path(__file__).parents[1] / "goldens/format1"
NORMS = ("dar_bn", "aux_bn")


def config_of(norm):
    fields = {"model.norm": norm, "checkpoint.every_steps": 2, "checkpoint.keep": 100}
    return tiny_config(FOLDER / "tiny.npz", **fields)


def stored_arrays(norm, prefix):
    with np.load(FOLDER / norm / "arrays.npz") as arrays:
        return {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}


@pytest.mark.parametrize("norm", NORMS)
def test_every_array_is_read_unchanged(norm):
    checkpoints = Checkpoints(FOLDER / norm)
    assert checkpoints.newest() == 8
    assert "format" not in read_json(FOLDER / norm / "checkpoints/8/record.json")
    found = by_name(checkpoints.restore(8, build(config_of(norm)).target()))
    expected = stored_arrays(norm, "stored/")
    assert found.keys() == expected.keys() and len(found) > 10
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("norm", NORMS)
def test_training_continues_to_the_final_state_of_the_first_release(norm, tmp_path):
    shutil.copytree(FOLDER / norm, tmp_path / "run")
    notes = Notes()
    final = by_name(train_and_evaluate(config_of(norm), tmp_path / "run", notes))
    assert any("continues at step 8" in line for line in notes.lines)
    expected = stored_arrays(norm, "final/")
    assert final.keys() == expected.keys()
    for name, array in expected.items():
        # Other processors and compilers round differently.
        np.testing.assert_allclose(final[name], array, rtol=1e-3, atol=1e-5, err_msg=name)
    assert [r["epoch"] for r in read_metrics(tmp_path / "run/metrics.jsonl")] == [1, 2, 3, 4]
    assert read_json(tmp_path / "run/checkpoints/12/record.json")["format"] == 2
