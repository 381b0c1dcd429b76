"""The tables of methods: shared first stages, the mini tier, differences paired by seed."""

from functools import cache
from pathlib import Path

import pytest

from configs import cifar10_lt, cifar100_lt
from launch.cells import Row, collect, columns, entries, write
from launch.plan import MINI_EPOCHS, MINI_MODEL, Cell, Plan, Table
from launch.planning import tasks_of, training_pflop
from launch.tables import make_table
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate
from purenoise_jax.methods import METHODS
from purenoise_jax.runtime.errors import ConfigError

MINI = Plan(epochs=MINI_EPOCHS, model=MINI_MODEL, mini=True)
ROOT = Path("runs")


@cache
def full(name):
    return make_table(name, Plan())


@cache
def mini():
    return make_table("methods", MINI)


def tasks(method):
    return tasks_of(MINI.config("CIFAR-10-LT", method, augment="flip_crop"), 0, ROOT)


def workdirs(method):
    return [task.workdir for task in tasks(method)]


@pytest.mark.parametrize(
    ("method", "first"),
    [("drs", "erm"), ("ldam+drw", "ldam"), ("crt", "erm"), ("ncm", "erm"), ("lws", "erm"),
     ("mixup+mislas", "mixup"), ("m2m", "erm"), ("vs+adrw+tla", "vs")],
)  # fmt: skip
def test_a_run_starts_from_the_run_of_another_cell(method, first):
    (earlier,) = workdirs(first)
    begun, last = tasks(method)
    assert begun.workdir == earlier and last.config.init_from == str(earlier)
    assert begun.config.to_json() == tasks(first)[0].config.to_json()
    assert last.first_epoch == last.config.init_epoch <= begun.config.num_epochs == MINI_EPOCHS


def test_m2m_uses_the_network_that_it_starts_from():
    begun, last = tasks("m2m")
    assert last.config.frozen.g == str(begun.workdir)
    assert not begun.config.frozen.g


def test_a_second_stage_of_m2m_has_the_network_of_its_first():
    first, second, last = tasks("m2m+crt")
    assert second.config.frozen.g == last.config.frozen.g == str(first.workdir)
    assert second.starts_from == (first.workdir,)
    assert last.starts_from == (second.workdir, first.workdir)


def test_a_network_that_was_named_stays_and_has_folders_of_its_own():
    def with_network(method, network):
        config = MINI.config("CIFAR-10-LT", method, augment="flip_crop")
        config.frozen.g = network
        return tasks_of(config, 0, ROOT)

    plain, named = with_network("m2m", "runs/wide")
    assert plain.config.to_json() == tasks("erm")[0].config.to_json()
    assert named.config.frozen.g == "runs/wide"
    assert named.starts_from == (plain.workdir, Path("runs/wide"))
    folders = {with_network("m2m", n)[-1].workdir for n in ("", "runs/wide", "runs/other")}
    assert len(folders) == 3 and workdirs("m2m")[-1] in folders
    assert [t.config.frozen.g for t in with_network("drs", "runs/wide")] == ["", ""]


def test_a_run_without_its_network_is_refused_before_any_trains():
    config = MINI.config("CIFAR-10-LT", "erm", augment="flip_crop")
    config.phases.initial.methods = ("m2m",)
    (task,) = tasks_of(config, 0, ROOT)
    with pytest.raises(ConfigError, match=r"frozen\.g='' names no run"):
        task.check()


def test_the_mini_tier_is_small_says_so_and_shows_no_published_number():
    table = mini()
    assert "mini: resnet8 on images of 16 x 16" in MINI.caveat and "40 epochs" in MINI.caveat
    for cell in table.cells:
        validate(cell.config)
        assert (cell.config.data.image_size, cell.config.model.name) == (16, "resnet8")
        assert not cell.published
    assert len(make_table("methods_cifar100", MINI).cells) == 10


def test_the_projector_of_joint_ssl_is_small_in_the_mini_tier_alone():
    for plan, width in ((MINI, 256), (Plan(), 0)):
        assert plan.config("CIFAR-10-LT", "joint_ssl").model.projector_width == width


@pytest.mark.parametrize("ratio", [100, 50, 10])
@pytest.mark.parametrize(
    ("name", "table", "module"),
    [("CIFAR-10-LT", "methods", cifar10_lt), ("CIFAR-100-LT", "methods_cifar100", cifar100_lt)],
)
def test_a_cell_is_what_the_config_of_the_data_trains(name, table, module, ratio):
    for cell in full(table).cells:
        if cell.setting == f"{name}, ratio {ratio}" and cell.method in ("MiSLAS", "GLMC", "TDE"):
            method = {"MiSLAS": "mixup+mislas"}.get(cell.method, cell.method.lower())
            given = f"method={method},ir={ratio},model=resnet32,augment=flip_crop"
            assert cell.config.to_json() == module.get_config(given).to_json()


@pytest.mark.parametrize(
    ("table", "setting", "method", "published"),
    [
        ("methods", "CIFAR-10-LT, ratio 100", "ERM", ("70.36", "71.23", "71.25 ± 0.10", "")),
        ("methods", "CIFAR-10-LT, ratio 10", "VS", ("", "", "88.74 ± 0.24", "")),
        ("methods", "CIFAR-10-LT, ratio 50", "CDT, deferred", ("81.27", "", "", "")),
        ("methods", "CIFAR-10-LT, ratio 100", "mixup", ("", "", "", "")),
        ("methods", "CIFAR-10-LT, ratio 100", "mixup (Bag of Tricks)", ("74.06", "", "", "")),
        ("methods", "CIFAR-10-LT, ratio 100", "MAMix, then DRW", ("", "82.29", "", "")),
        ("methods_cifar100", "CIFAR-100-LT, ratio 100", "remix, then DRW", ("", "46.00", "", "")),
        ("methods_cifar100", "CIFAR-100-LT, ratio 100", "M2m", ("", "41.92", "", "")),
        ("methods_cifar100", "CIFAR-100-LT, ratio 100", "balanced softmax",
         ("42.99", "", "", "44.02")),
        ("methods_cifar100", "CIFAR-100-LT, ratio 50", "DRW (Bag of Tricks)",
         ("43.37", "", "", "")),
        ("methods_cifar100", "CIFAR-100-LT, ratio 10", "LDAM-DRW, tuned weight decay",
         ("", "", "58.31 ± 0.32", "")),
    ],
)  # fmt: skip
def test_published_numbers_are_in_the_right_cells(table, setting, method, published):
    found = full(table)
    assert found.published == ("Bag of Tricks", "imbalanced-DL", "DDC", "logit-adj-pytorch")
    (cell,) = [c for c in found.cells if (c.setting, c.method) == (setting, method)]
    assert cell.published == published
    assert (cell.config is None) == ("tuned" in method)


def test_numbers_of_bag_of_tricks_have_its_settings():
    found = {(c.setting, c.method): c for c in full("methods").cells}

    def config(name, ratio=100):
        return found[f"CIFAR-10-LT, ratio {ratio}", f"{name} (Bag of Tricks)"].config

    for name in ("mixup", "manifold mixup", "remix"):
        assert config(name).num_epochs == 400 and config(name).optimizer.milestones == (320, 360)
    manifold = config("manifold mixup").method.manifold_mixup
    assert (manifold.alpha, manifold.places) == (1.0, ("features",))
    smoothing = config("label-aware smoothing", 50).method.label_aware_smoothing
    assert (smoothing.head, smoothing.tail) == (0.4, 0.1)
    focal = config("focal loss").method.focal
    assert (focal.form, focal.gamma) == ("sigmoid", 2.0)
    assert config("cRT").method.crt.bn == config("LWS").method.lws.bn == "shifted"
    assert config("tau-normalised").method.tau_norm.bias
    balanced = found["CIFAR-10-LT, ratio 50", "class-balanced focal loss"].config.method
    assert (balanced.class_balanced.beta, balanced.focal.gamma) == (0.9999, 2.0)
    assert (balanced.class_balanced.divide_by, balanced.focal.form) == ("rows", "sigmoid")
    # A row of theirs without a number would be a run for nothing.
    named = [cell for cell in found.values() if "(Bag of Tricks)" in cell.method]
    assert all(cell.published[0] for cell in named)


@pytest.mark.parametrize(
    ("name", "method"),
    [("inverse frequency, deferred", "reweight"), ("CDT, deferred", "cdt"),
     ("balanced softmax, deferred", "balanced_softmax")],
)  # fmt: skip
def test_a_deferred_loss_follows_plain_training(name, method):
    (cell,) = [c for c in mini().cells if c.method == name]
    phases = cell.config.phases
    assert (phases.initial.methods, phases.deferred.methods) == (("erm",), (method,))
    first, last = tasks_of(cell.config, 0, ROOT)
    assert [first.workdir] == workdirs("erm") and last.first_epoch == 32


def test_every_method_has_a_row_but_the_two_that_the_page_names():
    methods = {
        name
        for cell in mini().cells
        for phase in cell.config.phases.values()
        for name in phase.methods
    }
    # "drs" is "rs" in a later phase.
    assert {*METHODS} - methods - {"drs"} == {"append", "logit_adjustment"}


@pytest.mark.parametrize("method", ["erm", "tau_norm"])
def test_a_run_whose_methods_only_evaluate_takes_over_the_plain_run_as_a_whole(method):
    (plain,) = workdirs("erm")
    adjusted = {"augment": "flip_crop", "method__erm__tau": 1.0}
    first, own = tasks_of(MINI.config("CIFAR-10-LT", method, **adjusted), 0, ROOT)
    assert first.workdir == plain != own.workdir
    assert own.first_epoch == own.config.init_epoch == own.config.num_epochs == MINI_EPOCHS
    assert own.starts_from == (plain,) and training_pflop(own) == 0 < training_pflop(first)
    validate(own.config)
    first, _ = tasks_of(MINI.config("CIFAR-10-LT", "drs", **adjusted), 0, ROOT)
    assert first.workdir == plain


@pytest.mark.parametrize(
    "method", ["drs+tau_norm", "drw+tau_norm", "tau_norm+crt", "erm", "ldam+drw"]
)
def test_a_run_starts_from_an_epoch_whose_checkpoint_its_source_keeps(method):
    found = {task.workdir: task.config for task in tasks(method)}
    for config in found.values():
        if config.init_from:
            source = found[Path(config.init_from)]
            assert config.init_epoch in (*source.checkpoint.epochs, source.num_epochs)
            assert not source.init_from or source.init_epoch < config.init_epoch


def test_a_run_that_may_end_early_trains_itself_whatever_its_methods_do():
    """The plain run may have no checkpoint of the last epoch."""
    config = MINI.config("CIFAR-10-LT", "tau_norm", augment="flip_crop")
    config.eval.patience = 3
    (task,) = tasks_of(config, 0, ROOT)
    assert not task.starts_from and training_pflop(task) > 0


def test_a_table_has_any_number_of_published_columns():
    cell = Cell("setting", "ERM", default_config(), ("", "1.5", "2.5"))
    table = Table("title", "source", (cell,), published=("a", "b", "c", "d"), note="Not alike.")
    assert columns(table, Plan())[:6] == ["", "a", "b", "c", "d", "here"]
    assert entries(Row(cell, 1, ()), table, Plan())[:5] == ["ERM", "-", "1.5", "2.5", "-"]
    with pytest.raises(ValueError, match="setting, ERM: a number without a column"):
        Table("title", "source", (cell,), published=("a", "b"))
    assert not table.unpublished().note


def test_the_note_is_printed_beneath_the_table(tmp_path):
    note = full("methods").note
    assert "two last blocks" in note
    small = Table("title", "source", (Cell("setting", "ERM", default_config()),), note=note)
    path, _ = write(small, collect(small, 1, tmp_path), Plan(), tmp_path, "small")
    assert path.read_text().rstrip().endswith(f"Published: source. {note}")


def row(name, accuracy):
    summaries = [{"seed": seed, "test_accuracy": value} for seed, value in accuracy.items()]
    return Row(Cell("setting", name, default_config()), 3, tuple(summaries))


def test_differences_are_paired_by_seed():
    erm, other = row("ERM", {0: 0.5, 1: 0.6, 2: 0.7}), row("other", {1: 0.62, 2: 0.74, 5: 0.1})
    # By hand: 2 and 4 points, mean 3, standard error sqrt(2) / sqrt(2).
    assert other.difference(erm) == "+3.0 ± 1.0"
    assert erm.difference(other) == "-3.0 ± 1.0" and erm.difference(erm) == "-"
    assert row("late", {7: 0.5}).difference(erm) == "-"
    table = Table("title", "source", (erm.cell, other.cell), baselines=("ERM",))
    assert entries(other, table, MINI, [erm, other])[-1] == "+3.0 ± 1.0"
