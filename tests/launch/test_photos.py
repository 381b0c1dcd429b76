"""Real photos, decoded from their JPEGs at every step: killed and resumed, and on two SLURM nodes.

The images are not part of the project: 3,781 photos of clothes in ten classes, CC0, a reduced form of
github.com/alexeygrigorev/clothing-dataset-small. PURENOISE_JAX_CLOTHING names their folder, which
holds train/, val/ and test/.
"""

import json
import os
import subprocess
import sys
import time

import pytest

from purenoise_jax.checkpoint.manager import Checkpoints
from tests.launch.slurm_jobs import ROOT, Run, cluster_alone, why_not

pytestmark = pytest.mark.slow

PHOTOS = os.environ.get("PURENOISE_JAX_CLOTHING", "")
CONFIG = f"{ROOT}/configs/cifar10_lt.py:model=resnet8,epochs=3,augment=flip_crop"
# 3,068 images in 12 steps an epoch; checkpoints within them.
STEPS_PER_EPOCH = 12
FIELDS = (
    *("--config.data.source=folder", f"--config.data.path={PHOTOS}", "--config.data.image_size=32"),
    *("--config.data.profile=natural", "--config.data.feed=decoded", "--config.batch_size=256"),
    *("--config.checkpoint.every_steps=5", "--config.checkpoint.every_epochs=0"),
)


@pytest.fixture(scope="module", autouse=True)
def photos(tmp_path_factory):
    if not PHOTOS:
        pytest.skip("PURENOISE_JAX_CLOTHING does not name the folder of the photos")
    # Shared, so that checksums and statistics are measured once.
    cache = pytest.MonkeyPatch()
    cache.setenv("PURENOISE_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    cache.undo()


def start(workdir):
    """Starts a run on two devices in one process."""
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    return subprocess.Popen(
        [sys.executable, "-m", "purenoise_jax.main", "--config", CONFIG, "--workdir", str(workdir),
         "--config.num_devices=2", *FIELDS],
        env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def finished(workdir):
    """The summary of a run that has written its report."""
    assert (workdir / "report.html").stat().st_size > 10_000
    return json.loads((workdir / "summary.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("photos") / "run"
    with start(workdir) as process:
        assert process.wait() == 0
    return finished(workdir)


def test_a_run_on_photos_that_is_killed_and_resumed_is_the_undisturbed_run(undisturbed, tmp_path):
    workdir = tmp_path / "run"
    with start(workdir) as process:
        while max(Checkpoints(workdir).steps(), default=0) <= STEPS_PER_EPOCH:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    saved = max(Checkpoints(workdir).steps())
    assert not (workdir / "summary.json").exists() and saved % STEPS_PER_EPOCH
    with start(workdir) as process:
        assert process.wait() == 0
    resumed = finished(workdir)
    for name in ("state_digest", "test_accuracy", "confusion_matrix", "dataset_fingerprint"):
        assert resumed[name] == undisturbed[name]


def test_two_slurm_nodes_train_on_photos_as_two_devices_do(undisturbed, tmp_path):
    if why := why_not():
        pytest.skip(why)
    with cluster_alone(), Run(tmp_path, *FIELDS, config=CONFIG) as job:
        job.wait("COMPLETED")
    both = finished(job.workdir)
    for name in ("state_digest", "confusion_matrix", "dataset_fingerprint"):
        assert both[name] == undisturbed[name]
