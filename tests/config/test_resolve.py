"""Open config fields: the values that they are resolved to, and those that a run has recorded."""

import io
import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from configs import cifar10, cifar10_lt, cifar100_lt, digits_lt
from purenoise_jax.checkpoint.digest import state_digest
from purenoise_jax.config.fields import default_config, flatten
from purenoise_jax.config.identity import config_hash, fixed_fields
from purenoise_jax.config.resolve import (
    CIFAR_MEAN,
    CIFAR_STD,
    flat_data,
    kept_lines,
    resolved,
)
from purenoise_jax.config.run_record import (
    CONFIG_FILE,
    recorded_fields,
    refuse_other_run,
    saved_config,
)
from purenoise_jax.config.validation import validate
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.runtime.files import read_json, write_json
from purenoise_jax.training.build import build, run_options
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.records import subset_line
from tests.tiny import tiny_config, write_npz

OWN = {"data.source": "npz"}
FASHION = {"data.source": "tfds", "data.name": "fashion_mnist:3.0.1"}
OTHER = {"data.source": "tfds", "data.name": "eurosat/rgb"}
DIGITS = {"data.source": "digits"}
FIRST_RELEASE = {
    "data.profile": "exp", "data.imbalance_ratio": 100.0, "data.normalize": "train_subset",
    "data.normalize_mean": [], "data.normalize_std": [],
}  # fmt: skip


def config_with(fields):
    config = default_config()
    config.update_from_flattened_dict(fields)
    validate(config)
    return config


def resolves_to(fields, recorded=None):
    values = flat_data(resolved(config_with(fields), recorded))
    return tuple(values.values())[:3]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("exp", 100.0, "explicit")),
        ({"data.name": "cifar100"}, ("exp", 100.0, "explicit")),
        ({"data.source": "cifar_dir"}, ("exp", 100.0, "explicit")),
        ({"data.source": "tfds", "data.name": "cifar10:3.0.2"}, ("exp", 100.0, "explicit")),
        ({"data.imbalance_ratio": 1.0}, ("exp", 1.0, "explicit")),
        (DIGITS, ("exp", 100.0, "train_subset")),
        ({"data.name": "digits"}, ("exp", 100.0, "train_subset")),
        (FASHION, ("exp", 100.0, "train_subset")),
        (OTHER, ("natural", 0.0, "train_subset")),
        (OWN, ("natural", 0.0, "train_subset")),
        ({"data.source": "folder"}, ("natural", 0.0, "train_subset")),
        # Asked for.
        (OWN | {"data.imbalance_ratio": 20.0}, ("exp", 20.0, "train_subset")),
        (OWN | {"data.imbalance_ratio": 1.0}, ("exp", 1.0, "train_subset")),
        (OWN | {"data.profile": "step"}, ("step", 100.0, "train_subset")),
        (OWN | {"data.normalize": "full_train"}, ("natural", 0.0, "full_train")),
        ({"data.profile": "natural"}, ("natural", 0.0, "explicit")),
        ({"data.normalize": "train_subset"}, ("exp", 100.0, "train_subset")),
    ],
)
def test_open_fields_are_resolved(fields, expected):
    assert resolves_to(fields) == expected
    config = resolved(config_with(fields))
    assert resolved(config) is config, "no field is open any more"
    validate(config)


def test_cifar_images_use_customary_constants_and_noise_uses_the_subset():
    for module in (cifar10_lt, cifar100_lt, cifar10):
        for preset in ("paper", "rescience"):
            data = resolved(module.get_config(f"preset={preset}")).data
            assert data.normalize == "explicit"
            assert (data.normalize_mean, data.normalize_std) == (CIFAR_MEAN, CIFAR_STD)
    assert cifar10_lt.get_config().method.open.noise_stats == "train_subset"
    assert resolved(digits_lt.get_config()).data.normalize == "train_subset"
    assert CIFAR_MEAN == (0.4914, 0.4822, 0.4465) and CIFAR_STD == (0.2023, 0.1994, 0.2010)


def test_a_folder_of_tfds_decides_the_data_set(tmp_path):
    """The name in its metadata counts, not `data.name`, whose default is cifar10."""
    (tmp_path / "dataset_info.json").write_text(json.dumps({"name": "eurosat"}))
    fields = {"data.source": "tfds", "data.path": str(tmp_path)}
    assert resolves_to(fields) == ("natural", 0.0, "train_subset")
    (tmp_path / "dataset_info.json").write_text("{")
    assert resolves_to(fields) == ("exp", 100.0, "explicit")


def test_open_fields_keep_recorded_values():
    assert resolves_to(OWN, FIRST_RELEASE) == ("exp", 100.0, "train_subset")
    assert resolves_to({}, FIRST_RELEASE) == ("exp", 100.0, "train_subset")
    step = FIRST_RELEASE | {"data.profile": "step", "data.imbalance_ratio": 7.0}
    assert resolves_to(OWN, step)[:2] == ("step", 7.0)
    assert resolves_to(OWN | {"data.imbalance_ratio": 9.0}, step)[:2] == ("step", 9.0)
    # A given value always counts.
    assert resolves_to(OWN | {"data.profile": "natural"}, FIRST_RELEASE)[0] == "natural"
    natural = FIRST_RELEASE | {"data.profile": "natural"}
    assert resolves_to(OWN | {"data.imbalance_ratio": 9.0}, natural)[:2] == ("exp", 9.0)
    explicit = FIRST_RELEASE | {
        "data.normalize": "explicit", "data.normalize_mean": [0.5], "data.normalize_std": [0.2],
    }  # fmt: skip
    assert resolved(config_with(OWN), explicit).data.normalize_mean == (0.5,)


def test_kept_values_that_a_new_run_would_not_have_are_reported():
    assert kept_lines(config_with({}), {}) == ()
    (line,) = kept_lines(config_with({}), FIRST_RELEASE)
    assert line == (
        "keeps data.normalize=train_subset as recorded; a new run would have "
        "data.normalize=explicit"
    )
    (line,) = kept_lines(config_with(OWN), FIRST_RELEASE)
    assert line.startswith("keeps data.profile=exp, data.imbalance_ratio=100.0 as recorded; ")
    assert line.endswith("a new run would have data.profile=natural")
    assert kept_lines(config_with(DIGITS), FIRST_RELEASE) == ()


@pytest.mark.parametrize("fields", [{}, OWN, DIGITS, OTHER])
def test_open_and_resolved_fields_define_the_same_run(fields):
    left_open = config_with(fields)
    spelled = resolved(left_open)
    assert config_hash(left_open) == config_hash(spelled)
    assert fixed_fields(left_open) == fixed_fields(spelled)
    assert saved_config(left_open)["config"] == spelled.to_dict()
    assert "auto" not in (spelled.data.profile, spelled.data.normalize)


def test_the_ratio_is_not_compared_if_every_image_is_kept(tmp_path):
    config = config_with(OWN)
    write_json(tmp_path / CONFIG_FILE, saved_config(config))
    # The first release recorded the ratio although it did not use it.
    saved = saved_config(config)
    saved["fixed"]["data.imbalance_ratio"] = 100.0
    write_json(tmp_path / CONFIG_FILE, saved)
    refuse_other_run(config, tmp_path)
    asked = config_with(OWN | {"data.imbalance_ratio": 100.0})
    refusal = r"of another run; data\.profile: 'natural' there, 'exp' here; choose"
    with pytest.raises(CheckpointError, match=refusal):
        refuse_other_run(resolved(asked, recorded_fields(asked, tmp_path)), tmp_path)


@pytest.mark.parametrize("place", ["", "run", "train/run", "../link", "../photos/../photos/run"])
def test_a_new_workdir_among_class_folders_is_refused(tmp_path, monkeypatch, place):
    (tmp_path / "photos/train").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos")
    monkeypatch.chdir(tmp_path)
    config = config_with({"data.source": "folder", "data.path": "photos"})
    workdir = tmp_path / "photos" / place
    with pytest.raises(
        ConfigError, match=r"^workdir=.* lies in data\.path=photos, where its files"
    ):
        refuse_other_run(config, workdir)
    for other in ("runs/photos", "photos2", "photos/../runs"):
        refuse_other_run(config, tmp_path / other)
    named = {"data.source": "folder", "data.path": ".", "data.train_split": "photos"}
    refuse_other_run(config_with(named), tmp_path / "run")
    with pytest.raises(ConfigError, match="lies in data"):
        refuse_other_run(config_with(named), workdir)
    # Lists name their images, so other files beside them do no harm.
    refuse_other_run(config_with({"data.source": "list", "data.path": "photos"}), workdir)
    # A run that was begun before this was refused.
    workdir.mkdir(exist_ok=True)
    write_json(workdir / CONFIG_FILE, saved_config(config))
    refuse_other_run(config, workdir)


def shown_by(config, workdir):
    screen = io.StringIO()
    console = Console(file=screen, width=400, highlight=False)
    state = train_and_evaluate(config, workdir, Display(console=console))
    return state, screen.getvalue()


def open_config(npz, **fields):
    """One epoch on a user's own data, with every field open that may be open."""
    config = tiny_config(npz, num_epochs=1, **{
        "data.profile": "auto", "optimizer.warmup_epochs": 0, "checkpoint.epochs": (1,), **fields,
    })  # fmt: skip
    config.phases = ConfigDict({"initial": {"start_epoch": 0, "methods": ("erm",)}})
    return config


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "even.npz", (100, 100, 100, 100))


def test_every_image_of_own_data_is_kept_and_the_header_says_so(npz, tmp_path):
    config = open_config(npz)
    assert len(build(config).training.labels) == 400
    _, text = shown_by(config, tmp_path)
    assert "all 400 images kept (natural)" in text and "as recorded" not in text
    assert read_json(tmp_path / CONFIG_FILE)["config"]["data"]["profile"] == "natural"


@pytest.mark.slow
def test_a_run_of_the_first_release_continues_with_recorded_values(npz, tmp_path):
    first = open_config(
        npz, **{**FIRST_RELEASE, "data.normalize_mean": (), "data.normalize_std": ()}
    )
    begun, text = shown_by(first, tmp_path)
    assert "exp, ratio 100: 126 of 400 images" in text
    # Without the fields the same command would now keep all 400.
    again, text = shown_by(open_config(npz), tmp_path)
    assert "exp, ratio 100: 126 of 400 images" in text
    assert "keeps data.profile=exp, data.imbalance_ratio=100.0 as recorded" in text
    assert state_digest(again) == state_digest(begun)
    with pytest.raises(CheckpointError, match=r"data\.profile: 'exp' there, 'natural' here"):
        train_and_evaluate(open_config(npz, **{"data.profile": "natural"}), tmp_path)
    # A run with init_from keeps the values of that run.
    second = open_config(npz, init_from=str(tmp_path), init_epoch=1)
    second.num_epochs = 2
    _, text = shown_by(second, tmp_path / "second")
    assert "keeps data.profile=exp" in text
    assert read_json(tmp_path / "second" / CONFIG_FILE)["fixed"]["data.profile"] == "exp"


def test_no_fields_are_read_from_a_damaged_config_file(tmp_path):
    config = default_config()
    for text in ("{", "[]", '{"config": 1}', '{"config": []}'):
        (tmp_path / CONFIG_FILE).write_text(text)
        assert recorded_fields(config, tmp_path) == {}
    config.init_from = str(tmp_path / "nowhere")
    assert recorded_fields(config, tmp_path / "none") == {}


def test_the_subset_is_described_in_one_line():
    config = resolved(config_with({"data.imbalance_ratio": 100.0}))
    assert (
        subset_line(run_options(config), 12_406, 50_000)
        == "exp, ratio 100: 12,406 of 50,000 images"
    )
    natural = resolved(config_with(OWN))
    assert subset_line(run_options(natural), 3_781, 3_781) == "all 3,781 images kept (natural)"
    natural.data.limit = 5
    assert (
        subset_line(run_options(natural), 50, 3_781) == "natural, data.limit=5: 50 of 3,781 images"
    )
    config.data.indices = "/lists/cui.npy"
    assert (
        subset_line(run_options(config), 12_406, 50_000)
        == "listed in cui.npy: 12,406 of 50,000 images"
    )


def test_the_message_of_an_unreachable_ratio_names_the_natural_profile(tmp_path):
    data = write_npz(tmp_path / "own.npz", (30, 12, 6, 3))
    with pytest.raises(
        ConfigError, match=r"at most 3, or data\.profile=natural, which keeps every"
    ):
        build(open_config(data, **{"data.imbalance_ratio": 100.0}))
    assert np.sum(build(open_config(data)).training.stats.class_counts) == 51
    assert flatten(open_config(data))["data.imbalance_ratio"] == 0
