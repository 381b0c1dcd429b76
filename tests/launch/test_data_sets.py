"""Rows of tables about other data sets than CIFAR: runnable where their place is given."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from launch import cells, data_sets, reproduce
from launch.data_sets import DATA_SETS, OPTION, SIZES, data_cell, data_config
from launch.plan import Plan, Table
from launch.planning import tasks_of, tasks_of_table, training_pflop
from launch.tables import TABLES, Entry, make_table
from launch.two_stage import MISLAS_ELSEWHERE, mislas_elsewhere
from purenoise_jax.config.validation import validate
from purenoise_jax.data.sources import published_lists
from purenoise_jax.models import MODELS
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from tests import tiny  # noqa: F401  (adds the network)
from tests.trees import TREES

# The rows of each table that wait for a data set, in all.
WAITING = {
    "zada_peers": {"CelebA-5": 7, "ImageNet-LT": 7, "Places-LT": 6},
    "procrustean": {"ImageNet-LT": 16},
    "simplifying": {"CINIC-10": 9},
    "two_stage": {"ImageNet-LT": 2, "Places-LT": 2, "iNaturalist 2018": 2},
}
IMAGENET, PLACES = "ImageNet-LT, ResNeXt-50", "Places-LT, ResNet-152 pre-trained on ImageNet"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Each data set in its layout, and the weights of Places-LT as an empty file."""
    found = {}
    for name, data in DATA_SETS.items():
        root = tmp_path_factory.mktemp(data.config)
        found[name] = TREES[data.config](root)["data.path"]
        if data.weights:
            (root / data.weights).touch()
    return found


def waiting_in(table):
    needs = [cell.needs for cell in table.cells if cell.needs in DATA_SETS]
    return {name: needs.count(name) for name in dict.fromkeys(needs)}


def rows(name, plan):
    """Setting and method -> config."""
    return {(cell.setting, cell.method): cell.config for cell in make_table(name, plan).cells}


@pytest.mark.parametrize("name", WAITING)
def test_without_a_place_the_rows_wait(name):
    assert waiting_in(make_table(name, Plan())) == WAITING[name]


@pytest.mark.parametrize(
    ("name", "quick"),
    [
        ("simplifying", False),
        *(pytest.param(name, quick, marks=pytest.mark.slow) for name in WAITING for quick in
          (False, True) if (name, quick) != ("simplifying", False)),
    ],
)  # fmt: skip
def test_with_their_places_all_rows_are_legal_runs_of_their_own(
    name, quick, places, tmp_path, monkeypatch
):
    plan = Plan(epochs=5, quick=True) if quick else Plan()
    there = {dataset: places[dataset] for dataset in WAITING[name]}
    fewer = make_table(name, plan)
    more = make_table(name, Plan(plan.preset, plan.epochs, quick=quick, places=there))
    assert not waiting_in(more) and not data_sets.hints(more.cells)
    published_only = 2 if name == "procrustean" else 0
    added = sum(WAITING[name].values()) - published_only
    assert len(more.configs) == len(fewer.configs) + added or quick
    tasks = {t.workdir: t for t in tasks_of_table(more, [0], tmp_path)}
    for each in tasks_of_table(fewer, [0], tmp_path):
        assert tasks.pop(each.workdir).config.to_json() == each.config.to_json()
    assert tasks
    monkeypatch.setattr(published_lists, "PUBLISHED", {})
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    for task in tasks.values():
        validate(task.config)
        assert task.config.data.path in there.values()
        methods = {m for phase in task.config.phases.values() for m in phase.methods}
        if quick and "m2m" not in methods:
            # The layouts have few images, none of a rare class, and no first network.
            task.config.batch_size, task.config.num_devices = 4, 1
            task.config.method.seql.threshold = 1.0
            if task.config.data.name == "cinic10":
                task.config.data.imbalance_ratio = 2.0
            build(task.config)


def test_files_are_those_of_the_place(places):
    for name, data in DATA_SETS.items():
        made = data_config(Plan(places=places), name, "erm", epochs=90)
        assert made.data.path == places[name]
        for field in data.lists:
            path = made.data[field.removeprefix("data.")]
            assert path.endswith(data.lists[field]) and Path(path).is_file()
        assert made.model.pretrained.endswith(data.weights)
        assert made.data.name in SIZES


def test_the_rows_of_imagenet_have_the_recipe_of_their_source(places):
    plan = Plan(places={"ImageNet-LT": places["ImageNet-LT"]})
    of = {name: rows(name, plan) for name in ("zada_peers", "two_stage", "procrustean")}

    def found(name, setting, method):
        c = of[name][setting, method]
        last = max(c.phases.values(), key=lambda phase: phase.start_epoch)
        return (c.model.name, c.num_epochs, c.batch_size, last.start_epoch, last.methods)

    resnext = "resnext50_32x4d"
    assert found("zada_peers", IMAGENET, "OPeN") == (resnext, 220, 256, 180, ("open",))
    assert found("zada_peers", IMAGENET, "LADE") == (resnext, 180, 256, 0, ("lade",))
    assert found("zada_peers", IMAGENET, "BALMS") == (resnext, 90, 256, 0, ("balanced_softmax",))
    for name, setting, method in (
        ("zada_peers", IMAGENET, "MiSLAS, ResNet-50"),
        ("two_stage", "ImageNet-LT, ResNet-50", "MiSLAS"),
    ):
        assert found(name, setting, method) == ("resnet50", 190, 256, 180, ("mislas",))
    ten = "ImageNet-LT, ResNet-10"
    assert found("procrustean", ten, "MFW, reconstructed, DRW") == (
        "resnet10",
        200,
        256,
        160,
        ("mfw", "drw"),
    )
    assert found("procrustean", ten, "LWS") == ("resnet10", 95, 512, 90, ("lws",))
    assert found("procrustean", IMAGENET, "cRT") == (resnext, 100, 512, 90, ("crt",))
    causal = [of["procrustean"][IMAGENET, f"de-confounded{more}"] for more in ("", ", TDE")]
    assert [each.method.tde.alpha for each in causal] == [0.0, 3.0]


def test_rows_of_other_data_sets_have_what_their_sources_change(places):
    def of(table, *names):
        return rows(table, Plan(places={name: places[name] for name in names}))

    peers = of("zada_peers", "CelebA-5", "Places-LT")
    lade = peers[PLACES, "LADE"]
    assert (lade.method.lade.alpha, lade.method.lade.penalty) == (0.005, 0.1)
    assert (lade.optimizer.learning_rate, lade.optimizer.head_learning_rate) == (1e-3, 5e-2)
    assert (lade.batch_size, lade.model.head) == (128, "linear")
    balms = peers[PLACES, "BALMS"].phases.second_stage
    assert (balms.start_epoch, balms.learning_rate, balms.methods) == (30, 0.02, ("meta_sampler",))
    assert peers["CelebA-5", "OPeN, AutoAugment"].data.augment == ("autoaugment",)
    mislas = of("two_stage", "iNaturalist 2018")["iNaturalist 2018, ResNet-50", "MiSLAS"]
    assert (mislas.num_epochs, mislas.optimizer.weight_decay) == (210, 1e-4)
    row = of("simplifying", "CINIC-10")["CINIC-10", "SAM-A"]
    assert row.num_epochs == 300 and row.method.sam_a.statistics == "both"
    assert row.phases.initial.methods == ("cutmix", "sam_a", "label_smoothing", "ema")


@pytest.mark.parametrize("setting", MISLAS_ELSEWHERE)
def test_the_first_stage_of_mislas_is_trained_once(setting, places, tmp_path):
    dataset = setting.partition(",")[0]
    plan = Plan(places={dataset: places[dataset]})
    first, both = (
        tasks_of(
            data_config(plan, dataset, method, **mislas_elsewhere(dataset, method)), 0, tmp_path
        )
        for method in ("mixup", "mixup+mislas")
    )
    assert [each.workdir for each in both[:-1]] == [each.workdir for each in first]


def test_fields_that_are_about_cifar_do_not_reach_other_data(places):
    fields = {"data.path": "cifar", "data.source": "cifar_dir", "data.image_size": 32,
              "data.profile": "exp", "data.val_fraction": 0.1, "dtype": "bfloat16"}  # fmt: skip
    plan = Plan(overrides=fields, places=places)
    celeba = data_config(plan, "CelebA-5", "erm", epochs=90)
    assert celeba.data.path == places["CelebA-5"] and celeba.dtype == "bfloat16"
    assert (celeba.data.source, celeba.data.profile) == ("list", "natural")
    assert celeba.data.image_size == 64
    # It has validation images of its own, but CINIC-10 has none that are read.
    assert celeba.data.val_fraction == 0
    assert data_config(plan, "CINIC-10", "erm", epochs=300).data.val_fraction == 0.1
    with pytest.raises(ConfigError, match="the table itself decides"):
        data_config(Plan(overrides={"seed": 1}, places=places), "CINIC-10", "erm", epochs=300)


def test_other_networks_and_tiers_replace_the_published_one(places):
    small = data_config(Plan(model="resnet20", places=places), "Places-LT", "open", epochs=30)
    assert (small.model.name, small.model.pretrained) == ("resnet20", "")
    mini = Plan(epochs=40, model="resnet8", mini=True, places=places)
    made = data_config(mini, "ImageNet-LT", "open", epochs=220)
    assert (made.data.image_size, made.data.resize_shorter, made.num_epochs) == (16, 18, 44)
    validate(made)


def one_row(plan):
    """A table of one row."""
    cell = data_cell(plan, "CINIC-10", "CINIC-10", "ERM", "40.5", "erm", epochs=300)
    return Table("one", "source", (cell,), published=("paper",))


def dry(monkeypatch, capsys, tmp_path, *more):
    monkeypatch.setitem(TABLES, "one", Entry(one_row))
    assert reproduce.main(["one", "--dry-run", "--seeds", "2", "--out", str(tmp_path), *more]) == 0
    return capsys.readouterr().out


def test_a_dry_run_counts_the_rows_whose_place_is_given(monkeypatch, capsys, tmp_path, places):
    small = ("--quick", "--epochs", "5")
    hint = f"{OPTION} CINIC-10=PATH trains the rows that need it."
    without = dry(monkeypatch, capsys, tmp_path, *small)
    assert "0 runs, 0 to do" in without and hint in without
    text = dry(monkeypatch, capsys, tmp_path, *small, OPTION, f"CINIC-10={places['CINIC-10']}")
    assert "2 runs, 2 to do" in text and "CINIC-10-resnet8-erm" in text and hint not in text


def test_the_cost_is_that_of_the_images_of_the_data_set(places, tmp_path):
    plan = Plan(model="resnet8", places=places)
    tables = {
        name: Table(
            "",
            "",
            (data_cell(plan, name, "", "", "", "erm", epochs=200, optimizer__warmup_epochs=0),),
        )
        for name in ("CINIC-10", "CelebA-5")
    }
    costs = {}
    for name, table in tables.items():
        (task,) = tasks_of_table(table, [0], tmp_path)
        side = task.config.data.image_size
        costs[name] = training_pflop(task) / side**2
    # 9,000 to 90 images by an exponential, and 6,651; cost of a network grows with the pixels.
    counts = sum(int(9000 * 0.01 ** (k / 9)) for k in range(10))
    assert costs["CINIC-10"] / costs["CelebA-5"] == pytest.approx(counts / 6651, rel=0.02)


def test_a_waiting_row_names_the_option_below_the_table(tmp_path):
    table = one_row(Plan())
    rows = cells.collect(table, 2, tmp_path)
    out = io.StringIO()
    cells.show(table, rows, Plan(), Console(file=out, width=200))
    hint = f"{OPTION} CINIC-10=PATH trains the rows that need it."
    assert "missing: needs CINIC-10" in out.getvalue() and hint in out.getvalue()
    page, _ = cells.write(table, rows, Plan(), tmp_path, "one")
    assert hint in page.read_text()
    # A name with a blank is one word for a shell.
    nature = data_cell(Plan(), "iNaturalist 2018", "", "", "", "erm", epochs=90)
    (line,) = data_sets.hints([nature])
    assert line.startswith(f'{OPTION} "iNaturalist 2018=PATH" ')


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["CINIC=x"], "--data-set='CINIC' is unknown; legal: CINIC-10, .*did you mean 'CINIC-10'"),
        (["CINIC-10"], "--data-set CINIC-10: not NAME=PATH"),
        (["CINIC-10="], "not NAME=PATH"),
        (["CINIC-10=nowhere"], "--data-set CINIC-10=nowhere: there is no such folder"),
        (["CINIC-10=.", "CINIC-10=."], "CINIC-10 is given twice"),
    ],
)
def test_what_is_no_place_is_refused(given, message):
    with pytest.raises(ConfigError, match=message) as end:
        data_sets.places(given)
    assert "\n" not in str(end.value)


def test_a_place_without_its_lists_or_weights_is_refused(tmp_path, places):
    empty = tmp_path / "deep" / "images"
    empty.mkdir(parents=True)
    for name, missing in (
        ("ImageNet-LT", "ImageNet_LT_train.txt in it or beside it; imagenet_lt: images of ILSVRC"),
        ("Places-LT", "resnet152.safetensors in it or beside it; places_lt"),
    ):
        with pytest.raises(ConfigError, match=f"there is no {missing}"):
            data_config(Plan(places={name: str(empty)}), name, "erm", epochs=90)


def test_a_place_that_no_row_needs_is_refused(places):
    plan = Plan(places={"CINIC-10": places["CINIC-10"]})
    with pytest.raises(ConfigError, match="no row of zada_peers needs it; legal: CelebA-5, Im"):
        make_table("zada_peers", plan)
    with pytest.raises(ConfigError, match="no row of resnet32 needs it; legal: none"):
        make_table("resnet32", plan)


def test_the_process_of_a_run_gets_the_places(places, monkeypatch):
    monkeypatch.chdir(places["CINIC-10"])
    words = ["simplifying", OPTION, "CINIC-10=."]
    again = reproduce.arguments_for_a_run(reproduce.parser().parse_args(words), 4)
    plan = reproduce.make_plan(reproduce.parser().parse_args(again))
    assert plan.places == {"CINIC-10": places["CINIC-10"]}


@pytest.mark.slow
def test_a_quick_table_trains_on_the_place(places, monkeypatch, tmp_path):
    """From lists, decoded and cropped, in two runs."""

    def make(plan):
        cell = data_cell(plan, "ImageNet-LT", "ImageNet-LT", "OPeN", "", "open", epochs=220)
        return Table("one", "source", (cell,), published=("paper",))

    monkeypatch.setattr(published_lists, "PUBLISHED", {})
    monkeypatch.setitem(MODELS, "resnet8", MODELS["tiny"])
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(TABLES, "one", Entry(make))
    words = ["one", "--quick", "--epochs", "2", "--out", str(tmp_path), "--set", "batch_size=8",
             OPTION, f"ImageNet-LT={places['ImageNet-LT']}"]  # fmt: skip
    assert reproduce.main(words) == 0
    page = (tmp_path / "quick" / "tables" / "one.md").read_text()
    assert "(n=1)" in page and "missing" not in page
