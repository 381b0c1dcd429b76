"""Two nodes of a real SLURM train as two devices of one process do, also if a node is lost.

`tests/local_slurm.sh pytest -m slow tests/launch/test_slurm_nodes.py`
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from purenoise_jax.checkpoint.manager import Checkpoints
from tests.launch.slurm_jobs import ROOT, Job, Run, cluster_alone, lost_node, why_not
from tests.tiny import write_npz

pytestmark = pytest.mark.slow

# 225 images in batches of 2, and checkpoints that are not at the end of an epoch.
COUNTS = (120, 60, 30, 15)
STEPS_PER_EPOCH = 113
LONG = (
    *("--config.batch_size=2", "--config.num_epochs=3", "--config.optimizer.milestones=()"),
    *("--config.checkpoint.every_steps=40", "--config.checkpoint.every_epochs=0"),
)


@pytest.fixture(scope="module", autouse=True)
def slurm():
    why = why_not()
    if why:
        pytest.skip(why)


@pytest.fixture(autouse=True)
def nobody_else(slurm, undisturbed):
    with cluster_alone():
        yield


def alone(devices, *command):
    """Runs a module in one process."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-m", *map(str, command)], env=environment, check=True)


def digest(workdir):
    return json.loads((workdir / "summary.json").read_text())["state_digest"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    npz = write_npz(tmp_path_factory.mktemp("data") / "tiny.npz", COUNTS)
    return f"{ROOT}/tests/tiny_cli.py:{npz},one_phase"


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """The digest of two devices in one process."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    command = ("--config", config, "--workdir", workdir, "--config.num_devices=2", *LONG)
    alone(2, "purenoise_jax.main", *command)
    return digest(workdir)


def test_two_nodes_train_to_the_digest_of_two_devices(config, undisturbed, tmp_path):
    with Run(tmp_path, *LONG, config=config) as job:
        job.wait("COMPLETED")
    assert digest(job.workdir) == undisturbed


def test_a_job_that_loses_a_node_within_an_epoch_continues_to_the_same_digest(
    config, undisturbed, tmp_path
):
    with Run(tmp_path, *LONG, config=config) as job:
        job.wait_for_steps(beyond=STEPS_PER_EPOCH)
        with lost_node():
            # SLURM finds it by itself.
            job.wait("PENDING")
        saved = max(Checkpoints(job.workdir).steps())
        assert saved % STEPS_PER_EPOCH
        # The node may end the job once more when it comes back and hears of the loss.
        job.wait("COMPLETED")
        assert int(job.shown("Restarts")) >= 1
    assert "process 1 of 2 is gone" in job.log()
    assert f"continues at step {saved:,}," in job.log()
    assert digest(job.workdir) == undisturbed


def test_two_nodes_in_float64_differ_from_one_device_by_rounding_only(tmp_path):
    two, one = tmp_path / "two.npz", tmp_path / "one.npz"
    script = tmp_path / "job.sbatch"
    module = "tests.launch.float64_nodes"
    script.write_text(f"#!/bin/bash\nsrun python -m {module} {two}\n")
    with Job(tmp_path, "--nodes=2", "--ntasks-per-node=1", script) as job:
        job.wait("COMPLETED")
    alone(1, module, one, "alone")
    arrays = [np.load(path) for path in (two, one)]
    assert arrays[0].files == arrays[1].files and len(arrays[0].files) > 10
    for name in arrays[0].files:
        found, expected = (each[name] for each in arrays)
        scale = max(np.abs(expected).max(), np.finfo(np.float64).tiny)
        assert np.abs(found - expected).max() <= 1e-12 * scale, name
