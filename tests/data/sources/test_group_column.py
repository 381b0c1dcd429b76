"""The column of a table with the group of each image, from the table to the splits of a run."""

import csv
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from configs import isic2020
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate
from purenoise_jax.data.dataset import keep_classes
from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.file_splits import without_bad
from purenoise_jax.data.sources.lists import Lists, load_list
from purenoise_jax.data.training_set import HoldOut
from purenoise_jax.runtime.errors import ConfigError, DataError
from purenoise_jax.training.build import build
from tests import tiny  # noqa: F401  (adds the network)
from tests.data.test_training_set import make
from tests.trees import TREES, save

HEADER = ["path", "label", "patient"]
# Two to four images of a patient, not one after the other.
ROWS = [[f"{i}.png", str(i % 3 // 2), f"P{i * 7 % 11 % 6}"] for i in range(24)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))


def table(tmp_path, name, rows, header=HEADER):
    file = tmp_path / f"{name}.csv"
    with open(file, "w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])
    for row in rows:
        save(tmp_path / "images" / row[0])
    return str(file)


def load(tmp_path, feed="resident", *, skips_bad=False, **lists):
    given = {"group_column": "patient", **lists}
    return load_for(
        feed, "list", name="", path=str(tmp_path / "images"), image_size=8, train_split="",
        test_split="", lists=Lists(**given), skips_bad=skips_bad,
    )  # fmt: skip


@pytest.mark.parametrize("feed", ["resident", "mapped", "decoded"])
def test_every_feed_has_the_groups_of_the_table(tmp_path, feed):
    dataset = load(tmp_path, feed, train_list=table(tmp_path, "train", ROWS))
    names = sorted({patient for *_, patient in ROWS})
    assert dataset.train_groups.tolist() == [names.index(patient) for *_, patient in ROWS]
    plain = load(tmp_path, feed, train_list=table(tmp_path, "train", ROWS), group_column="")
    assert plain.train_groups is None and plain.content == dataset.content
    # The files of the cache are the same.
    assert len([*(tmp_path / "cache").rglob("manifests/*.json")]) == (
        0 if feed == "resident" else 2
    )


@pytest.mark.parametrize("feed", ["resident", "mapped", "decoded"])
def test_groups_follow_the_images_that_are_kept(tmp_path, feed):
    train = table(tmp_path, "train", ROWS)
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    dataset = load(tmp_path, feed, train_list=train, skips_bad=True)
    if feed == "decoded":
        dataset = without_bad(dataset)
    kept = [row for row in ROWS if row[0] != "3.png"]
    names = sorted({patient for *_, patient in kept})
    assert [names[g] for g in dataset.train_groups] == [patient for *_, patient in kept]
    ones = keep_classes(dataset, [1])
    of_class = [patient for _, label, patient in kept if label == "1"]
    assert [names[g] for g in ones.train_groups] == of_class


@pytest.mark.parametrize(
    "rule",
    [
        {"val_fraction": 0.3},
        {"folds": 3, "fold": 1},
        {"test_fraction": 0.3},
        {"test_fraction": 0.25, "val_fraction": 0.25},
    ],
)
@pytest.mark.parametrize("subset", [{"profile": "natural"}, {"profile": "exp"}])
def test_no_group_is_in_two_splits(tmp_path, rule, subset):
    dataset = load(tmp_path, train_list=table(tmp_path, "train", ROWS))
    rule = HoldOut(**rule, group_column="patient")
    training = make(dataset, imbalance_ratio=1.5, held_out=rule, **subset)
    by_pixels = {
        image.tobytes(): group
        for image, group in zip(dataset.train_images, dataset.train_groups, strict=True)
    }
    splits = [training.images, training.val_images, training.test_images]
    groups = [{by_pixels[x.tobytes()] for x in images} for images in splits if images is not None]
    assert len(groups) == 1 + bool(rule.val_rule) + bool(rule.test_fraction) and all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))
    if rule.val_rule:
        assert rule.val_rule.endswith(", by patient")


def test_the_split_by_group_is_part_of_the_fingerprint(tmp_path):
    train = table(tmp_path, "train", ROWS)
    with_groups, without = (
        make(load(tmp_path, train_list=train, group_column=column), profile="natural",
             held_out=HoldOut(val_fraction=0.3))
        for column in ("patient", "")
    )  # fmt: skip
    assert with_groups.fingerprint != without.fingerprint


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        (ROWS, {"group_column": "patients"}, "wanted one column 'patients'; its columns: 'path'"),
        ([*ROWS, ["x.png", "0", ""]], {}, "line 26: column 'patient' is empty"),
        ([*ROWS, ["0.png", "0", "Q"]], {"repeats": "keep"},
         "line 26: 0.png is listed before, in another group"),
    ],
)  # fmt: skip
def test_faults_of_the_column_are_named(tmp_path, rows, more, message):
    with pytest.raises(DataError, match=re.escape(message)) as end:
        load(tmp_path, train_list=table(tmp_path, "train", rows), **more)
    assert "\n" not in str(end.value)


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_group_in_two_tables_is_refused(tmp_path, split):
    train = table(tmp_path, "train", ROWS)
    own = [[f"{split}{i}.png", str(i), f"other {i}"] for i in range(2)]
    load(tmp_path, train_list=train, **{f"{split}_list": table(tmp_path, split, own)})
    own[1][2] = "P3"
    message = f"data.{split}_list, line 3: patient 'P3' is in data.train_list, too"
    with pytest.raises(DataError, match=message):
        load(tmp_path, train_list=train, **{f"{split}_list": table(tmp_path, split, own)})


def test_lines_have_no_columns(tmp_path):
    save(tmp_path / "images" / "a.png")
    (tmp_path / "train.txt").write_text("a.png 0\n")
    with pytest.raises(DataError, match=r"data.group_column=patient needs a table, .* \.csv"):
        load_list(
            name="",
            path=str(tmp_path / "images"),
            lists=Lists(train_list=str(tmp_path / "train.txt"), group_column="patient"),
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.source": "folder"}, "data.group_column=patient is used only with data.source=list"),
        ({"data.source": "list", "data.val_per_class": 3},
         "data.val_per_class=3 draws images one by one, but data.group_column=patient keeps groups"),
    ],
)  # fmt: skip
def test_a_group_column_that_has_no_effect_is_refused(fields, message):
    config = default_config()
    config.update_from_flattened_dict({"data.group_column": "patient", **fields})
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(config)


def test_no_patient_of_isic_is_trained_and_tested_on(tmp_path):
    config = isic2020.get_config("epochs=2,model=tiny")
    fields = {**TREES["isic2020"](tmp_path), "data.image_size": 8, "data.resize_shorter": 8}
    fields |= {"batch_size": 8, "num_devices": 1, "data.val_fraction": 0.2}
    config.update_from_flattened_dict(fields)
    validate(config)
    experiment = build(config)
    with open(config.data.train_list) as file:
        of_name = {row["image_name"]: row["patient_id"] for row in csv.DictReader(file)}
    of_content = {
        int(hashlib.sha256(path.read_bytes()).hexdigest()[:16], 16): of_name[path.stem]
        for path in Path(config.data.path).iterdir()
    }
    splits = (experiment.training.images, experiment.dataset.test_images,
              experiment.dataset.val_images)  # fmt: skip
    found = [{of_content[int(digest)] for digest in images.digests()} for images in splits]
    assert all(found) and sum(map(len, found)) == len(set.union(*found)) == 10
    assert np.bincount(experiment.dataset.test_labels).all()
