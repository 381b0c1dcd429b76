"""Tables by source: numbers in their cells, and the settings that a source changes."""

import pytest

from launch.plan import Plan
from launch.planning import tasks_of
from launch.procrustean import ALPHAS, BEST
from launch.tables import make_table
from launch.two_stage import balanced_config
from purenoise_jax.config.validation import validate
from purenoise_jax.data.longtail import long_tail_counts

NAMES = ("zada_peers", "procrustean", "simplifying", "sam", "two_stage", "ladder")
PLANS = {
    "paper": Plan(),
    "rescience": Plan(preset="rescience"),
    "short": Plan(epochs=40, model="resnet32"),
    "quick": Plan(epochs=5, quick=True),
}
CIFAR10, CIFAR100 = "CIFAR-10-LT", "CIFAR-100-LT"


def cells(name, plan=PLANS["paper"]):
    return {(c.setting, c.method): c for c in make_table(name, plan).cells}


def config(name, setting, method):
    return cells(name)[setting, method].config


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(plan, id=name, marks=() if name == "paper" else pytest.mark.slow)
        for name, plan in PLANS.items()
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_a_legal_run_of_its_own(name, plan, tmp_path):
    table = make_table(name, plan)
    assert len(cells(name, plan)) == len(table.cells)
    for each in table.configs:
        validate(each)
    last = [tasks_of(each, 0, tmp_path)[-1].workdir for each in table.configs]
    assert len(set(last)) == len(last), "no two cells are the same run"


@pytest.mark.parametrize(
    ("name", "setting", "method", "paper", "needs"),
    [
        ("zada_peers", "CIFAR-10-LT, ratio 100", "LDAM-DRW", "80.5 ± 0.6", ""),
        ("zada_peers", "CIFAR-100-LT, ratio 50", "M2m", "52.9 ± 0.2", ""),
        ("zada_peers", "CIFAR-100-LT, ratio 100", "OPeN, AutoAugment", "54.2 ± 0.5", ""),
        ("zada_peers", "CIFAR-100-LT, ratio 100", "BALMS, ResNet-32, AutoAugment", "50.8", ""),
        ("zada_peers", "CelebA-5", "M2m", "76.9 ± 0.4", "CelebA-5"),
        ("zada_peers", "ImageNet-LT, ResNeXt-50", "LADE", "53.0", "ImageNet-LT"),
        ("procrustean", "CIFAR-100, step, ratio 100", "MFW, reconstructed, alpha 0.2", "42.6", ""),
        ("procrustean", "CIFAR-10, step, ratio 100", "manifold mixup", "65.4", ""),
        ("procrustean", "CIFAR-10, long-tailed, ratio 1000", "MFW, reconstructed", "62.0", ""),
        ("procrustean", "ImageNet-LT, ResNeXt-50", "LWS", "49.9", "ImageNet-LT"),
        ("simplifying", "CIFAR-100-LT, ratio 100", "M2m",
         "20.1 ± 0.6 / 41.8 ± 0.4 / 69.4 ± 0.5", ""),
        ("sam", "CIFAR-100-LT, ratio 100", "LDAM-DRW, SAM", "45.4", ""),
        ("two_stage", "CIFAR-100-LT, ratio 50, ResNet-32 (MiSLAS)", "MiSLAS", "52.3", ""),
        ("ladder", "CIFAR-100-LT, ResNet-32", "+ ADRW, TLA", "53.05 ± 0.12", ""),
        ("ladder", "CIFAR-10-LT, ResNet-32 of first width 64", "BCE3S, ResNet-34", "90.08", "BCE3S"),
    ],
)  # fmt: skip
def test_published_numbers_and_needs_are_in_the_right_cells(name, setting, method, paper, needs):
    cell = cells(name)[setting, method]
    assert (cell.published[:1], cell.needs) == ((paper,), needs)
    assert (cell.config is None) == bool(needs)


def test_the_peers_of_open_are_trained_as_the_paper_says():
    ours = config("zada_peers", "CIFAR-10-LT, ratio 50", "LDAM-DRW")
    assert (ours.model.name, ours.model.head) == ("wrn28_10", "cosine")
    assert ours.data.augment == ("flip", "crop", "cutout", "simclr")
    mislas = config("zada_peers", "CIFAR-100-LT, ratio 50", "MiSLAS, ResNet-32")
    assert (mislas.model.name, mislas.data.augment) == ("resnet32", ("flip", "crop"))
    argument = mislas.method.mislas
    assert (argument.head_smoothing, argument.tail_smoothing, argument.lr_factor) == (0.3, 0, 0.1)
    assert argument.bn == "shifted" and mislas.optimizer.gamma == 0.1


def test_runs_of_the_main_comparison_are_those_of_the_peers(tmp_path):
    def last(name):
        return {tasks_of(c, 0, tmp_path)[-1].workdir for c in make_table(name, Plan()).configs}

    assert len(last("main") & last("zada_peers")) == 4 * 5


def test_mfw_has_the_schedule_and_weights_of_its_supplement():
    step = config("procrustean", "CIFAR-10, step, ratio 100", "MFW, reconstructed, alpha 5")
    assert (step.num_epochs, step.data.profile, step.optimizer.schedule) == (300, "step", "cosine")
    assert (step.method.mfw.alpha, step.method.mfw.beta) == (5.0, 0.01)
    assert config("procrustean", "CIFAR-10, step, ratio 100", "ERM").num_epochs == 200
    long = config("procrustean", "CIFAR-100, long-tailed, ratio 100", "MFW, reconstructed, DRW")
    assert (long.method.mfw.alpha, long.method.mfw.beta) == (0.2, 2.0)
    assert long.phases.deferred.start_epoch == 240
    assert {BEST[data] for data in ALPHAS} == {1.0, 5.0, 0.2}
    remix = config(
        "procrustean", "CIFAR-10, step, ratio 100", "remix, weight function, reconstructed"
    )
    assert (remix.method.remix.weight_fn, remix.method.remix.beta) == ("sigmoid", 0.01)
    dense = config(
        "procrustean", "CIFAR-10, long-tailed, ratio 200, DenseNet-121", "MFW, reconstructed"
    )
    assert (dense.model.name, dense.data.imbalance_ratio) == ("densenet121_cifar", 200)


def test_all_rows_of_the_training_routines_have_the_recipe():
    for (_, name), cell in cells("simplifying").items():
        if cell.config is None:
            continue
        methods = {m for phase in cell.config.phases.values() for m in phase.methods}
        assert {"label_smoothing", "ema"} <= methods
        assert "cutmix" in methods and ("joint_ssl" in methods) == ("Joint-SSL" in name)
        assert cell.config.num_epochs == 300 and cell.config.data.augment == ("trivialaugment",)
        assert cell.config.model.dropout == 0


def test_sam_has_the_length_that_was_tuned_for_its_loss():
    lengths = {
        loss: config("sam", "CIFAR-100-LT, ratio 100", f"{loss}, SAM").method.sam.rho
        for loss in ("ERM", "DRW", "LDAM-DRW", "VS")
    }
    assert lengths == {"ERM": 0.2, "DRW": 0.8, "LDAM-DRW": 0.8, "VS": 0.3}
    plain = config("sam", "CIFAR-10-LT, ratio 100", "ERM, SAM-A, inverse_share").method.sam_a
    assert (plain.rho, plain.asymmetry, plain.statistics) == (0.05, "inverse_share", "both")
    other = config("sam", "CIFAR-10-LT, ratio 100", "LDAM-DRW, SAM-A, one_minus_share").method.sam_a
    assert (other.rho, other.asymmetry) == (0.8, "one_minus_share")


@pytest.mark.parametrize("ratio", [100, 200])
@pytest.mark.parametrize(
    ("dataset", "largest", "classes"), [(CIFAR10, 5000, 10), (CIFAR100, 500, 100)]
)
def test_epochs_of_balanced_softmax_are_its_iterations(dataset, largest, classes, ratio):
    steps = -(-int(long_tail_counts(largest, classes, imbalance_ratio=ratio).sum()) // 512)
    whole = balanced_config(Plan(), dataset, ratio, "meta_sampler")
    first = whole.phases.second_stage.start_epoch
    # To half an epoch, in either stage and in the warm-up.
    assert abs(first * steps - 13_000) <= steps / 2
    assert abs((whole.num_epochs - first) * steps - 2_000) <= steps / 2
    assert abs(whole.optimizer.warmup_epochs * steps - 800) <= steps / 2
    assert (whole.batch_size, whole.optimizer.weight_decay) == (512, 5e-4)


def test_second_stages_have_the_lengths_and_batch_norms_of_their_sources():
    setting = "CIFAR-100-LT, ratio 100, ResNet-34 (weight balancing, LOS)"
    maxnorm, los = (config("two_stage", setting, name) for name in ("MaxNorm", "LOS"))
    assert (maxnorm.phases.second_stage.start_epoch, maxnorm.num_epochs) == (320, 330)
    assert (los.phases.second_stage.start_epoch, los.num_epochs) == (200, 220)
    for each in (maxnorm, los):
        assert (each.optimizer.weight_decay, each.optimizer.learning_rate) == (5e-3, 0.01)
    assert maxnorm.method.maxnorm.bn == "shifted"
    crt = config("two_stage", "CIFAR-10-LT, ratio 50, ResNet-32 of BBN (Bag of Tricks)", "cRT")
    assert (crt.model.name, crt.method.crt.bn) == ("resnet32_bbn", "shifted")


def methods_by_phase(setting, name):
    return {n: p.methods for n, p in config("ladder", setting, name).phases.items()}


@pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100])
def test_every_row_of_a_ladder_has_a_twin_with_open(dataset):
    found = {
        (c.setting, c.method): {m for p in c.config.phases.values() for m in p.methods}
        for c in make_table("ladder", PLANS["paper"]).cells
        if c.config is not None and c.setting.startswith(f"{dataset},")
    }
    ends = (", OPeN", ", then OPeN", ", OPeN in place of DRW", ", OPeN at once")
    plain = [key for key, methods in found.items() if "open" not in methods]
    assert len(plain) == 11 + 6 + 4
    for setting, name in plain:
        (twin,) = [end for end in ends if (setting, name + end) in found]
        missing = found[setting, name] - found[setting, name + twin]
        assert missing <= {"erm", "drw"} and ("DRW" in twin) == ("drw" in missing)


def test_open_takes_the_place_of_an_adjusted_loss():
    assert methods_by_phase("CIFAR-10-LT, ResNet-32", "LDAM-DRW, OPeN in place of DRW") == {
        "initial": ("ldam",), "deferred": ("ldam", "open"),
    }  # fmt: skip
    assert methods_by_phase("CIFAR-10-LT, ResNet-32", "VS, then OPeN") == {
        "initial": ("vs",), "deferred": ("open",),
    }  # fmt: skip
    assert methods_by_phase("CIFAR-10-LT, ResNet-32", "+ MaxNorm, OPeN at once") == {
        "initial": ("vs", "sam"), "deferred": ("sam", "adrw", "tla", "open"),
        "second_stage": ("maxnorm",),
    }  # fmt: skip
    assert methods_by_phase("CIFAR-10-LT, ResNet-34", "+ MaxNorm, then OPeN") == {
        "initial": ("vs", "sam"), "deferred": ("sam", "open"), "second_stage": ("maxnorm",),
    }  # fmt: skip
    assert methods_by_phase("CIFAR-10-LT, ResNet-34", "+ SAM, OPeN at once with VS") == {
        "initial": ("vs", "sam"), "deferred": ("vs", "sam", "open"),
    }  # fmt: skip
    assert methods_by_phase("CIFAR-10-LT, ResNet-32 of first width 64", "GLMC, OPeN") == {
        "initial": ("glmc",), "deferred": ("glmc", "open"),
    }  # fmt: skip


@pytest.mark.parametrize("dataset", [CIFAR10, CIFAR100])
def test_rungs_differ_from_the_one_below_by_one_component(dataset):
    column = (CIFAR10, CIFAR100).index(dataset)
    setting = f"{dataset}, ResNet-34"
    names = ("ERM", "+ weight decay 5e-3", "+ AutoAugment, Cutout", "+ VS", "+ SAM", "+ MaxNorm")
    rungs = [config("ladder", setting, name) for name in names]
    assert [r.optimizer.weight_decay for r in rungs] == [2e-4, *[5e-3] * 5]
    assert ["autoaugment" in r.data.augment for r in rungs] == [False, False, *[True] * 4]
    assert [r.phases.initial.methods for r in rungs] == [
        *[("erm",)] * 3, ("vs",), ("vs", "sam"), ("vs", "sam"),
    ]  # fmt: skip
    assert len({(r.model.name, r.batch_size, r.optimizer.learning_rate) for r in rungs}) == 1
    top = config("ladder", f"{dataset}, ResNet-32", "+ ADRW, TLA")
    assert top.method.sam.rho == (0.1, 0.2)[column] and top.num_epochs == 400
    # In the script of Wang et al. every loss has its own length and weight decay.
    for name, length, decay in (
        ("+ SAM", (0.1, 0.3), (2e-4, 2e-4)),
        ("ERM with SAM, the same epochs", (0.1, 0.2), (1e-4, 1e-4)),
        ("LDAM-DRW with SAM, the same epochs", (0.4, 0.5), (5e-5, 1e-4)),
    ):
        row = config("ladder", f"{dataset}, ResNet-32", name)
        assert row.method.sam.rho == length[column]
        assert row.optimizer.weight_decay == decay[column]
    assert (top.method.adrw.t, top.method.tla.tau) == ((0.15, 1.0), (0.25, 0.75))[column]
    assert top.phases.deferred.weight_decay == (-1.0, 5e-4)[column]
