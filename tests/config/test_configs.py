"""Config files: every one is valid with every argument; illegal arguments are refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from configs import cifar10, cifar10_lt, cifar100, cifar100_lt, common, digits_lt
from purenoise_jax.config.fields import FIELDS, default_config, flatten
from purenoise_jax.config.identity import config_hash, fixed_fields
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.config.resolve import resolved
from purenoise_jax.config.validation import validate
from purenoise_jax.data.longtail import long_tail_counts
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import METHODS, build_recipe
from purenoise_jax.runtime.errors import ConfigError
from tests.trees import TREES

M = np.float32([0.5] * 3)
STATS = DataStats(np.array([50, 5]), (32, 32, 3), M, M, M, M, M, M)


def test_every_config_file_is_tested():
    files = {p.stem for p in Path(digits_lt.__file__).parent.glob("*.py")} - {"__init__"}
    ours = {"cifar10", "cifar100", "cifar10_lt", "cifar100_lt", "digits_lt"}
    # Those with a published layout are tested in test_data_set_configs.py, and the one of own
    # images in test_own_images.py.
    assert files == ours | {*TREES} | {"images"}


@pytest.mark.every(5)
@pytest.mark.parametrize("module", [cifar10_lt, cifar100_lt, digits_lt])
@pytest.mark.parametrize(("method", "epochs"), list(itertools.product(METHODS, [2, 7, 200])))
def test_every_method_is_valid_at_every_length(module, method, epochs):
    config = module.get_config(f"method={method},epochs={epochs}")
    validate(config)
    config.frozen.g, config.method.seql.threshold = "runs/erm", 0.5
    for phase in config.phases.values():
        recipe = build_recipe(phase.methods, STATS, config.method.to_dict())
        assert all(config.model[name] == value for name, value in recipe.requires.items())


# Head and tail smoothing and rate factor of MiSLAS, k and power of GLMC, t of ADRW, tau of TLA; as in
# the authors' code, and those for 100 at ratios that it does not have.
OF_SOURCES = {
    (cifar10_lt, 100): ((0.3, 0.0, 0.5), (1.0, 1.2), 0.15, 1.0),
    (cifar10_lt, 50): ((0.2, 0.0, 0.2), (1.0, 1.2), 0.15, 1.0),
    (cifar10_lt, 10): ((0.1, 0.0, 0.2), (2.0, 1.0), 0.1, 1.0),
    (cifar10_lt, 200): ((0.3, 0.0, 0.5), (1.0, 1.2), 0.15, 1.0),
    (cifar100_lt, 100): ((0.4, 0.1, 0.2), (4.0, 1.2), 0.25, 0.75),
    (cifar100_lt, 50): ((0.3, 0.0, 0.1), (6.0, 1.2), 0.25, 0.75),
    (cifar100_lt, 10): ((0.2, 0.0, 0.1), (4.0, 1.2), 0.1, 0.75),
    (cifar100_lt, 20): ((0.4, 0.1, 0.2), (4.0, 1.2), 0.25, 0.75),
}


@pytest.mark.parametrize(("module", "ratio"), OF_SOURCES)
def test_methods_have_the_arguments_of_their_sources(module, ratio):
    (head, tail, factor), consistency, t, tau = OF_SOURCES[module, ratio]
    found = module.get_config(f"method=mixup+mislas,ir={ratio}").method
    mislas, smoothing = found.mislas, found.label_aware_smoothing
    assert (mislas.head_smoothing, mislas.tail_smoothing, mislas.lr_factor) == (head, tail, factor)
    assert (smoothing.head, smoothing.tail) == (head, tail)
    assert mislas.bn == ("shifted" if module is cifar100_lt else "frozen")
    # Of SEQL, 0 is half of an even share.
    assert found.seql.threshold == (0.006 if (module, ratio) == (cifar100_lt, 50) else 0)
    assert (found.glmc.contrast_weight, found.glmc.power) == consistency
    assert (found.adrw.t, found.tla.tau) == (t, tau)
    of_data = (found.tde.alpha, found.mfw.alpha, found.focal_sam.rho, found.focal_sam.gamma)
    assert of_data == ((1.5, 0.2, 0.3, 3.2) if module is cifar100_lt else (1.0, 1.0, 0.2, 3.0))


def phases_of(method, epochs=200):
    config = digits_lt.get_config(f"method={method},epochs={epochs}")
    return {p.start_epoch: p.methods for p in config.phases.values()}, config


@pytest.mark.parametrize(
    ("text", "cifar10_values", "cifar100_values"),
    [
        ("profile=step", (5.0, 0.01, 0.0, 1.25, 0.1, 1.0), (5.0, 0.01, 0.0, 1.0, 0.1, 1.0)),
        ("profile=step,ir=10", (5.0, 0.01, 0.0, 1.0, 0.1, 1.0), (5.0, 0.01, 0.0, 1.0, 0.05, 1.0)),
        ("profile=exp", (1.0, 2.0, 0.05, 1.0, 0.15, 1.0), (0.2, 2.0, 0.05, 1.0, 0.25, 0.75)),
    ],
)
def test_methods_have_the_arguments_of_their_sources_for_steps(
    text, cifar10_values, cifar100_values
):
    for module, values in ((cifar10_lt, cifar10_values), (cifar100_lt, cifar100_values)):
        config = module.get_config(f"{text},method=mfw")
        validate(config)
        assert resolved(config).data.profile == text.partition(",")[0].partition("=")[2]
        of = config.method
        found = (of.mfw.alpha, of.mfw.beta, of.vs.gamma, of.vs.tau, of.adrw.t, of.tla.tau)
        assert found == values


def test_own_data_and_class_sizes_go_with_the_config_of_cifar():
    config = cifar10_lt.get_config("method=erm")
    config.data.class_counts, config.data.imbalance_ratio = (4984, 16), 0.0
    config.data.classes = (0, 1)
    validate(config)
    config = cifar10_lt.get_config("method=erm")
    config.data.source, config.data.path, config.data.imbalance_ratio = "npz", "x.npz", 0.0
    assert resolved(config).data.profile == "natural"


def test_a_profile_that_the_papers_do_not_cut_is_refused():
    with pytest.raises(ConfigError, match="profile='natural' is unknown; legal: exp, step"):
        cifar10_lt.get_config("profile=natural")


def test_methods_joined_by_plus_take_the_union_of_their_starts():
    assert phases_of("ldam+drw")[0] == {0: ("ldam",), 160: ("ldam", "drw")}
    assert phases_of("open+sam")[0] == {0: ("sam",), 160: ("open", "sam")}
    assert phases_of("drs")[0] == phases_of("rs+erm")[0] | {0: ("erm",), 160: ("rs",)}
    assert phases_of("ldam+drw")[1].model.head == "cosine"


def test_a_method_ends_where_another_replaces_it():
    assert phases_of("vs+adrw+tla+sam")[0] == {0: ("vs", "sam"), 160: ("adrw", "tla", "sam")}
    assert phases_of("vs+adrw")[0] == {0: ("vs",), 160: ("vs", "adrw")}


def test_a_second_stage_follows_the_training_and_has_only_its_own_methods():
    phases, config = phases_of("ema+mixup+crt")
    assert phases == {0: ("ema", "mixup"), 200: ("ema", "crt")}
    stage = config.phases.second_stage
    assert config.num_epochs == 230 and config.checkpoint.epochs == (160, 200)
    assert stage.reset == ("head", "opt_state") and stage.learning_rate == 0.1
    assert (stage.warmup_epochs, stage.milestones, stage.gamma) == (5, (10, 20), 0.1)
    assert config.optimizer.milestones == (160, 180) and config.init_epoch == 200
    short = phases_of("crt", epochs=3)[1]
    assert short.num_epochs == 4 and not short.phases.second_stage.milestones


def test_a_second_stage_on_cosines_that_no_method_scales_is_refused():
    with pytest.raises(ConfigError, match=r"method=ldam\+crt: ldam scales .* and crt, .* does not"):
        digits_lt.get_config("method=ldam+crt")
    # The average of the weights takes part in the second stage, and trains no head.
    with pytest.raises(ConfigError, match=r"scales .* and crt, .* does not"):
        digits_lt.get_config("method=ema+ldam+crt")


@pytest.mark.parametrize(
    ("method", "words"),
    [("nope", "method='nope' is unknown"), ("open+open", "names open twice"), ("", "unknown")],
)
def test_unknown_and_repeated_methods_are_refused(method, words):
    with pytest.raises(ConfigError, match=words):
        digits_lt.get_config(f"method={method}")


def test_the_default_schedule_is_that_of_the_paper():
    config = cifar10_lt.get_config()
    assert config.num_epochs == 200 and config.batch_size == 128
    assert config.phases.initial.to_dict() == make_phase(0, ("erm",)).to_dict()
    assert config.phases.deferred.to_dict() == make_phase(160, ("open",)).to_dict()
    opt = config.optimizer
    assert (opt.learning_rate, opt.momentum, opt.weight_decay) == (0.1, 0.9, 2e-4)
    assert (opt.warmup_epochs, opt.milestones, opt.gamma) == (5, (160, 180), 0.01)
    assert config.checkpoint.epochs == (160,)
    assert config.data.augment == ("flip", "crop", "cutout", "simclr")
    assert config.model.to_dict() == {
        "name": "wrn28_10", "norm": "dar_bn", "noise_grad": "auto", "head": "linear",
        "projector": "none", "projector_width": 0, "dropout": -1.0, "remat": "none", "pretrained": ""}  # fmt: skip
    assert config.method.open.delta == 1 / 3


def test_presets_differ_only_in_fields_that_the_paper_leaves_open():
    paper, rescience = (
        flatten(cifar10_lt.get_config(f"preset={p}")) for p in ("paper", "rescience")
    )
    assert {k for k in paper if paper[k] != rescience[k]} == {
        "model.noise_grad", "data.normalize", "data.normalize_mean", "data.normalize_std",
        "method.open.space", "method.open.noise_stats", "method.open.mean", "method.open.std",
        "method.append.space", "method.append.noise_stats", "method.append.mean",
        "method.append.std",
    }  # fmt: skip
    assert rescience["model.noise_grad"] == "full_stop"


def test_both_cifar_configs_differ_only_in_the_data_and_arguments_that_a_run_does_not_use():
    ten, hundred = fixed_fields(cifar10_lt.get_config()), fixed_fields(cifar100_lt.get_config())
    assert {k for k in {*ten, *hundred} if ten.get(k) != hundred.get(k)} == {"data.name"}


def test_method_fields_are_arguments_of_the_methods():
    given = {p.split(".")[1] for p in FIELDS if p.startswith("method.")}
    assert given <= set(METHODS)
    build_recipe(["open"], STATS, default_config().method.to_dict())


BAD = {bool: [0, "x", None], int: [True, 1.5, -5, None], float: [float("nan"), float("inf"), "1"],
       str: [1, None], tuple: ["x", 1, (None,), (float("nan"),)]}  # fmt: skip


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_refuses_values_of_a_wrong_type(path):
    for value in BAD[type(FIELDS[path].default)]:
        config = default_config()
        *parents, leaf = path.split(".")
        node = config
        for name in parents:
            node = node[name]
        with config.ignore_type():
            node[leaf] = value
        with pytest.raises(ConfigError, match=rf"{path}=.* is not legal; legal: "):
            validate(config)


def test_missing_and_unknown_fields_are_refused():
    config = default_config()
    del config["seed"]
    with pytest.raises(ConfigError, match="seed is missing"):
        validate(config)
    config = default_config()
    config.data.shuffle = True
    with pytest.raises(ConfigError, match=r"data\.shuffle is not a config field"):
        validate(config)


def test_the_hash_depends_only_on_fields_that_define_the_result():
    first, second = default_config(), default_config()
    second.checkpoint.keep, second.data.path, second.num_devices = 7, "/elsewhere", 4
    assert config_hash(first) == config_hash(second)
    second.optimizer.weight_decay = 1e-4
    assert config_hash(first) != config_hash(second)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("color_strength", 1.0),
        ("rotation_degrees", 30.0),
        ("randaugment_ops", 3),
        ("randaugment_magnitude", 10),
        ("augmix_severity", 1),
        ("resize_shorter", 256),
        ("test_fraction", 0.2),
    ],
)
def test_newer_settings_of_data_are_hashed_only_if_changed(name, value):
    config = default_config()
    assert f"data.{name}" not in fixed_fields(config)
    config.data[name] = value
    assert fixed_fields(config)[f"data.{name}"] == value


@pytest.mark.parametrize("module", [cifar10, cifar100])
@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("preset", common.PRESETS)
def test_balanced_cifar_configs_are_valid(module, start, preset):
    config = module.get_config(f"epochs=5,start={start},preset={preset}")
    validate(config)
    phases = {p.start_epoch: p.methods for p in config.phases.values()}
    assert phases == ({0: ("append",)} if start == 0 else {0: ("erm",), 4: ("append",)})
    assert (config.data.imbalance_ratio, config.data.augment) == (1, ("autoaugment",))
    opt = config.optimizer
    assert (opt.name, opt.learning_rate, opt.milestones) == ("adam", 1e-3, ())
    assert opt.weight_decay == (2e-4 if preset == "rescience" else 0)
    for phase in config.phases.values():
        build_recipe(phase.methods, STATS, config.method.to_dict())


def test_arguments_of_balanced_cifar_configs_are_checked():
    with pytest.raises(ConfigError, match=r"start=7 must lie in 0 \.\. epochs - 1 = 4"):
        cifar10.get_config("epochs=5,start=7")
    with pytest.raises(ConfigError, match=r"method='open' is unknown; legal: append, erm"):
        cifar10.get_config("method=open")


def test_every_augmentation_of_the_papers_is_valid():
    for name, operations in common.AUGMENTS.items():
        config = cifar10_lt.get_config(f"augment={name}")
        assert config.data.augment == operations
        validate(config)


@pytest.mark.every(4)
@pytest.mark.parametrize("epochs", range(2, 60))
def test_every_schedule_leaves_an_epoch_to_the_deferred_methods(epochs):
    config = cifar10_lt.get_config(f"method=drs,epochs={epochs}")
    first, *second = config.optimizer.milestones
    assert config.phases.deferred.start_epoch == config.init_epoch == first < epochs
    assert config.checkpoint.epochs == (first,)
    # An epoch lies between the drops and after the second; below 8 epochs there is no second.
    assert [first < drop < epochs for drop in second] == [True] * (epochs > 7)
    validate(config)


def test_one_epoch_is_not_enough_for_a_deferred_method():
    with pytest.raises(ConfigError, match=r"epochs=1 leaves no epoch for open .* at least 2"):
        cifar10_lt.get_config("epochs=1")
    validate(cifar10_lt.get_config("method=rs,epochs=1"))


@pytest.mark.parametrize(
    ("get", "name"), [(cifar10_lt.get_config, "cifar10"), (cifar100_lt.get_config, "cifar100")]
)
@pytest.mark.parametrize("ir", [100, 50, 10])
def test_balanced_draws_are_as_many_as_in_the_papers_epochs(get, name, ir):
    """The 40 deferred epochs have K * n_max draws each, up to half of an epoch of ours."""
    config, plain = get(f"draws=balanced,ir={ir}"), get(f"ir={ir}")
    validate(config)
    largest, classes = (5000, 10) if name == "cifar10" else (500, 100)
    images = long_tail_counts(largest, classes, imbalance_ratio=ir).sum()
    start = config.phases.deferred.start_epoch
    assert start == plain.phases.deferred.start_epoch == 160 == config.checkpoint.epochs[0]
    draws = (config.num_epochs - start) * images
    assert abs(draws - 40 * classes * largest) <= images / 2
    first, second = config.optimizer.milestones
    assert first == 160 and abs((second - start) * images - 20 * classes * largest) <= images / 2
    assert config.optimizer.warmup_epochs == 5
    assert ir != 100 or name != "cifar10" or config.num_epochs == 321


def test_balanced_draws_of_steps_count_the_images_of_steps():
    config = cifar10_lt.get_config("method=rs,draws=balanced,profile=step,ir=100,epochs=20")
    # Five classes of 5,000 images and five of 50.
    assert config.num_epochs == round(20 * 50_000 / 25_250)


def test_balanced_draws_from_the_start_stretch_the_whole_schedule():
    config = cifar10_lt.get_config("method=rs,draws=balanced,epochs=20")
    factor = 50_000 / 12_406
    assert config.num_epochs == round(20 * factor)
    assert config.optimizer.milestones == (round(16 * factor), round(18 * factor))
    validate(config)


def test_balanced_draws_require_a_method_that_resamples():
    with pytest.raises(ConfigError, match="method=erm draws every image once"):
        cifar10_lt.get_config("method=erm,draws=balanced")
    with pytest.raises(ConfigError, match="draws='all' is unknown; legal: train_size, balanced"):
        cifar10_lt.get_config("draws=all")
