"""The list source: published layouts, tables, and one message for all faults of the lists."""

import lzma
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from purenoise_jax.data.sources import file_manifest
from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.folder import load_folder
from purenoise_jax.data.sources.lists import Lists, list_files, load_list
from purenoise_jax.data.sources.published_lists import PUBLISHED, Published, check_published
from purenoise_jax.runtime.errors import ConfigError, DataError

SIDE = 8
# As published: Places-LT by class name, with validation images from the training folder;
# iNaturalist by kingdom and class number, and its validation images in the same folders.
PLACES = {
    "train": [("train/airfield/00004851.jpg", 0), ("train/zen_garden/00000012.jpg", 1),
              ("train/airfield/00004596.jpg", 0)],
    "val": [("train/airfield/00002049.jpg", 0), ("train/zen_garden/00000301.jpg", 1)],
    "test": [("val/zen_garden/Places365_val_00027944.jpg", 1),
             ("val/airfield/Places365_val_00003597.jpg", 0)],
}  # fmt: skip
INATURALIST = {
    "train": [("train_val2018/Aves/1/a39.jpg", 1), ("train_val2018/Plantae/0/b74.jpg", 0),
              ("train_val2018/Aves/2/c05.png", 2), ("train_val2018/Plantae/0/d11.jpg", 0)],
    "test": [("train_val2018/Aves/2/e92.jpg", 2), ("train_val2018/Plantae/0/f80.jpg", 0),
             ("train_val2018/Aves/1/c16.jpg", 1)],
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))


def save(root, name):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(os.fsencode(name))
    shape = (SIDE, SIDE, 3)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    image.save(path, "PNG" if path.suffix == ".png" else "JPEG")


def write(root, splits, folder=None):
    """Images below `root`, and a list for each split beside it."""
    given = {}
    for split, rows in splits.items():
        for name, _ in rows:
            save(root, name)
        file = (folder or root.parent) / f"{root.name}_{split}.txt"
        file.write_text("".join(f"{name} {label}\n" for name, label in rows))
        given[f"{split}_list"] = str(file)
    return Lists(**given)


def stored(root, name):
    return np.asarray(Image.open(root / name).convert("RGB"))


@pytest.mark.parametrize("splits", [PLACES, INATURALIST], ids=["places", "inaturalist"])
def test_images_and_labels_come_in_the_order_of_the_lists(tmp_path, splits):
    root = tmp_path / "images"
    lists = write(root, splits)
    dataset = load_list(name="", path=str(root), lists=lists)
    assert dataset.class_names == tuple(
        str(k) for k in range(1 + max(k for _, k in splits["train"]))
    )
    for split in ("train", "test", "val"):
        images, labels = getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels")
        rows = splits.get(split)
        if rows is None:
            assert images is None and labels is None
            continue
        assert labels.tolist() == [label for _, label in rows]
        np.testing.assert_array_equal(images, [stored(root, name) for name, _ in rows])


def test_lists_of_class_folders_give_the_data_set_of_the_folder_source(tmp_path):
    """Two sources, one tree."""
    root = tmp_path / "tree"
    splits = {
        split: [
            (f"{split}/{name}/{i}.png", k)
            for k, name in enumerate(("cat", "dog"))
            for i in range(3)
        ]
        for split in ("train", "test", "val")
    }
    one = load_list(name="", path=str(root), lists=write(root, splits))
    other = load_folder(name="", path=str(root))
    assert other.class_names == ("cat", "dog") and one.class_names == ("0", "1")
    for part in (
        "train_images",
        "train_labels",
        "test_images",
        "test_labels",
        "val_images",
        "val_labels",
    ):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


@pytest.mark.parametrize("feed", ["decoded", "mapped"])
def test_every_feed_has_the_same_images(tmp_path, feed):
    root = tmp_path / "images"
    options = dict(name="", path=str(root), image_size=6, train_split="", test_split="")
    options["lists"] = write(root, INATURALIST)
    wanted, found = (load_for(kind, "list", **options) for kind in ("resident", feed))
    assert type(found.train_images) is not np.ndarray
    for split in ("train", "test"):
        np.testing.assert_array_equal(
            getattr(found, f"{split}_images")[:], getattr(wanted, f"{split}_images")
        )
        np.testing.assert_array_equal(
            getattr(found, f"{split}_labels"), getattr(wanted, f"{split}_labels")
        )
    assert type(load_for("auto", "list", 10, **options).train_images).__name__ == "MappedImages"
    with pytest.raises(ConfigError, match=r"data\.test_split='val' is not read: data\.source=list"):
        load_for(feed, "list", **{**options, "test_split": "val"})


def test_the_content_of_lists_identifies_decoded_data_and_their_paths_do_not(tmp_path):
    root = tmp_path / "images"

    def content(lists):
        options = dict(name="", path=str(root), image_size=0, train_split="", test_split="")
        return load_for("decoded", "list", lists=lists, **options).content

    first = content(write(root, PLACES))
    (tmp_path / "moved").mkdir()
    assert content(write(root, PLACES, tmp_path / "moved")) == first
    kept = sorted((tmp_path / "cache/manifests").iterdir())
    other = {**PLACES, "train": PLACES["train"][::-1]}
    assert content(write(root, other)) != first
    # Neither replaces the other's manifest, whose checksums would have to be computed again.
    assert set(kept) < set((tmp_path / "cache/manifests").iterdir())


def text_lists(tmp_path, train, test="a.png 0\nb.png 1\n", **more):
    """Lists of a root where only the images of the test list and c.png, d.png are."""
    root = tmp_path / "root"
    for name in "abcd":
        save(root, f"{name}.png")
    for split, content in (("train", train), ("test", test)):
        kind = "csv" if "," in content else "txt"
        file = tmp_path / f"{split}.{kind}"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        more[f"{split}_list"] = str(file)
    return dict(name="", path=str(root), lists=Lists(**more))


def test_the_label_is_what_follows_the_last_blank(tmp_path):
    given = text_lists(tmp_path, "\ufeffin a  room/my photo.png\t1\r\n\n./c.png 00 \n")
    save(tmp_path / "root", "in a  room/my photo.png")
    dataset = load_list(**given)
    assert dataset.train_labels.tolist() == [1, 0]
    np.testing.assert_array_equal(
        dataset.train_images,
        [stored(tmp_path / "root", name) for name in ("in a  room/my photo.png", "c.png")],
    )


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("c.png 0\nd.png 1\nc.png 0\n", None, r"train_list, line 3: c\.png is listed before, in data\.train_list, line 1"),
        ("c.png 0\nd.png 1\n./c.png 1\n", None, r"line 3: c\.png is listed before"),
        ("c.png 0\na.png 1\n", None, r"test_list, line 1: a\.png is listed before, in data\.train_list, line 2"),
        ("c.png 0\n../d.png 1\n", None, r"train_list, line 2: '\.\./d\.png' leads out of data\.path"),
        ("c.png 0\nx/../d.png 1\n", None, r"line 2: 'x/\.\./d\.png' leads out"),
        ("c.png 0\n/etc/d.png 1\n", None, r"line 2: '/etc/d\.png' leads out of data\.path, /.*/root"),
        ("c.png cat\nd.png dog\n", None, r"label 'cat' is not legal; legal: integers from 0; names of classes need a table"),
        ("file,label\nc.png,0\n", None, r"one column 'path'; its columns: 'file', 'label'; data\.path_column, or the argument path_column="),
        ("path,class\nc.png,0\n", None, r"one column 'label'; .*; data\.label_column, or the argument label_column="),
        ("c.png 0\n\0 1\n", None, r"line 2: '\\x00' is no path"),
        ("c.png 0\nd.png 1\n", "a.png 0\nb.png 2\n", r"test_list, line 2: label '2' is not legal; legal: integers in 0 \.\. 1"),
        ("c.png 0\nd.png 1\n", "a.png -1\nb.png 1\n", r"test_list, line 1: label '-1' is not legal"),
        ("c.png cat\nd.png dog\n", None, r"label 'cat' is not legal; legal: integers from 0"),
        ("c.png 1\nd.png 2\n", None, r"train_list has no image of class 0, although its labels go up to 2"),
        ("c.png 0\nd.png 999999999\n", None, r"no image of class 1, although"),
        ("c.png 0\nd.png\n", None, r"train\.txt: line 2: wanted 'path label', got 'd\.png'"),
        ("", None, r"train_list=.*train\.txt: lists no image"),
        ("\n \n", None, r"train\.txt: lists no image"),
        ("c.png 0\nd.png 1\nx.png 1\ny/z.png 0\n", None, r"2 faults: x\.png: cannot be read \(No such file or directory\); y/z\.png: cannot"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("feed", ["resident", "decoded"])
def test_faults_are_named_by_list_and_line(tmp_path, train, test, message, feed):
    given = text_lists(tmp_path, train, *([] if test is None else [test]))
    with pytest.raises(DataError, match=message) as end:
        load_for(feed, "list", image_size=0, train_split="", test_split="", **given)
    assert "\n" not in str(end.value)


def test_all_faults_come_in_one_message(tmp_path):
    given = text_lists(tmp_path, "c.png 0\nd.png 1\nc.png 0\n/x 1\n", "a.png 7\n")
    with pytest.raises(DataError, match=r"3 faults: .*line 3.*line 4.*test_list, line 1"):
        load_list(**given)
    missing = Lists(train_list=str(tmp_path / "no.txt"), test_list=str(tmp_path))
    with pytest.raises(
        DataError, match=r"2 faults: data\.train_list=.*no\.txt: cannot be .*data\.test_list="
    ):
        load_list(**{**given, "lists": missing})


def test_lists_and_root_have_to_be_given(tmp_path):
    given = text_lists(tmp_path, "c.png 0\nd.png 1\n")
    with pytest.raises(ConfigError, match=r"data\.train_list is empty"):
        load_list(name="", path=given["path"])
    alone = load_list(**{**given, "lists": Lists(train_list=given["lists"].train_list)})
    assert not len(alone.test_images) and alone.val_images is None
    with pytest.raises(DataError, match=r"elsewhere: there is no such folder \(data\.path\)"):
        load_list(**{**given, "path": str(tmp_path / "elsewhere")})


def test_a_table_with_integers_as_those_of_aptos(tmp_path):
    """Its paths have no suffix, and its labels are integers in any order."""
    given = text_lists(
        tmp_path,
        "id_code,diagnosis\nc,1\nd,0\n",
        "id_code,diagnosis\na,0\nb,1\n",
        path_column="id_code",
        label_column="diagnosis",
        path_suffix=".png",
    )
    dataset = load_list(**given)
    assert dataset.class_names == ("0", "1") and dataset.train_labels.tolist() == [1, 0]
    np.testing.assert_array_equal(dataset.test_images[1], stored(tmp_path / "root", "b.png"))


def test_names_of_the_training_table_are_classes_in_sorted_order(tmp_path):
    """Any column may come first, and cells may be quoted."""
    header = "label,patient,path\r\n"
    train = f'{header}nevus,1,c.png\r\n"melanoma, in situ",2,"d.png"\r\n'
    given = text_lists(tmp_path, train, f'{header}"melanoma, in situ",3,a.png\r\nnevus,4,b.png\r\n')
    dataset = load_list(**given)
    assert dataset.class_names == ("melanoma, in situ", "nevus")
    assert dataset.train_labels.tolist() == [1, 0] and dataset.test_labels.tolist() == [0, 1]
    given = text_lists(tmp_path, train, f"{header}mole,3,a.png\r\n")
    with pytest.raises(
        DataError,
        match=r"line 2: label 'mole' is not legal; legal: the classes of data\.train_list, melanoma",
    ):
        load_list(**given)  # fmt: skip


def test_attributes_become_classes_and_images_without_exactly_one_are_left_out(tmp_path):
    """As hair colours do in CelebA-5; 1 and -1 as in CelebA."""
    rows = [("a.png", 1, -1), ("b.png", -1, 1), ("c.png", 1, 1), ("d.png", -1, -1)]
    test = "path,Bald,Black,Young\n" + "".join(f"{p},{x},{y},1\n" for p, x, y in rows)
    train = "path,Bald,Black\n" + "c.png,0,1\nd.png,1,0\n"
    dataset = load_list(**text_lists(tmp_path, train, test, label_column="Black, Bald"))
    assert dataset.class_names == ("Black", "Bald")
    assert dataset.train_labels.tolist() == [0, 1] and dataset.test_labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("train", "column", "message"),
    [
        (
            "file,label\nc.png,0\n",
            "label",
            r"wanted one column 'path'; its columns: 'file', 'label'",
        ),
        ("path,label,label\nc.png,0,0\n", "label", r"wanted one column 'label'"),
        ("path,label\nc.png\nd.png,1\n", "label", r"line 2: has 1 cells, but 2 columns"),
        ("path,label\nc.png,\nd.png,1\n", "label", r"line 2: label '' is not legal"),
        ('path,label\n"c.png,0\n', "label", r"unexpected end of data"),
        ("path,x,y\nc.png,1,yes\n", "x,y", r"line 2: 'yes' is none of 1, 0 and -1"),
        ("path,x,y\nc.png,0,0\n", "x,y", r"lists no image"),
    ],
)
def test_faults_of_tables(tmp_path, train, column, message):
    with pytest.raises(DataError, match=message):
        load_list(**text_lists(tmp_path, train, label_column=column))


def test_a_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    given = text_lists(tmp_path, "c.png 0\nd.png 1\n")
    save(tmp_path / "root", name)
    (tmp_path / "train.txt").write_bytes(b"c.png 0\ncaf\xe9.png 1\n")
    dataset = load_list(**given)
    np.testing.assert_array_equal(dataset.train_images[1], stored(tmp_path / "root", name))


def test_a_list_with_the_name_of_a_published_one_has_its_counts(tmp_path, monkeypatch):
    given = text_lists(tmp_path, "c.png 0\nd.png 1\n")
    message = re.escape(
        "data.train_list has 2 images of 2 classes, 1 to 1 in each, but the published list of "
        "data.name=places_lt has 62,500 images of 365 classes, 4,980 to 5 in each"
    )
    with pytest.raises(DataError, match=message):
        load_list(**{**given, "name": "places_lt"})
    with pytest.raises(DataError, match=r"has 437,513 images of 8,142 classes;"):
        load_list(**{**given, "name": "inaturalist18"})
    monkeypatch.setitem(PUBLISHED, "two", Published(2, 2, 1, 1))
    load_list(**{**given, "name": "two"})


def test_every_published_count_is_compared(monkeypatch):
    monkeypatch.setitem(PUBLISHED, "whole", Published(6, 2, 4, 2))
    check_published("whole", np.array([0, 0, 0, 0, 1, 1]), 2)
    for other in ([0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 2]):
        with pytest.raises(DataError, match="the published list"):
            check_published("whole", np.array(other), max(other) + 1)


@pytest.mark.parametrize("feed", ["resident", "mapped", "decoded"])
def test_images_in_two_classes_are_kept_if_a_config_says_so(tmp_path, feed):
    """As in the lists of CelebA-5, where an image with two hair colours is in both classes."""
    lines = "/home/author/c.png 0\n/home/author/c.png 1\n/home/author/d.png 1\n"
    given = text_lists(tmp_path, lines, "/x/a.png 0\n/x/y/c.png 1\n", path_parts=1, repeats="keep")
    options = dict(image_size=0, train_split="", test_split="", **given)
    for _ in range(2):  # The second time, the manifest is kept.
        found = load_for(feed, "list", **options)
        assert found.train_labels.tolist() == [0, 1, 1] and found.test_labels.tolist() == [0, 1]
        c, d = (stored(tmp_path / "root", f"{name}.png") for name in "cd")
        np.testing.assert_array_equal(found.train_images[:], [c, c, d])
        np.testing.assert_array_equal(found.test_images[1], c)


def test_a_repeated_image_has_one_manifest(tmp_path, monkeypatch):
    lists = text_lists(tmp_path, "c.png 0\nc.png 1\nd.png 1\n", repeats="keep")
    options = dict(image_size=0, train_split="", test_split="", **lists)
    for file in (tmp_path / "root").iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    load_for("decoded", "list", **options)

    def again(*_):
        raise AssertionError("is made a second time")

    monkeypatch.setattr(file_manifest, "_facts", again)
    load_for("decoded", "list", **options)


@pytest.mark.parametrize(
    ("parts", "line", "found"),
    [(1, "/a/b/c.png 0", "c.png"), (2, "/a/b/c.png 0", "b/c.png"), (3, "c.png 0", "c.png")],
)
def test_the_last_parts_of_a_path_count(tmp_path, parts, line, found):
    given = text_lists(tmp_path, f"{line}\nd.png 1\n", path_parts=parts)
    save(tmp_path / "root", "b/c.png")
    files = list_files(**given)
    assert files.splits["train"][0][0] == tmp_path / "root" / found


def test_absolute_paths_below_the_folder_are_those_below_it(tmp_path, monkeypatch):
    root = tmp_path / "root"
    given = text_lists(tmp_path, f"{root}/c.png 0\nd.png 1\n")
    monkeypatch.chdir(tmp_path)
    for path in (str(root), "root", "../" + tmp_path.name + "/root"):
        files = list_files(**{**given, "path": path}).splits["train"]
        assert [str(file) for file, _ in files] == [f"{path}/c.png", f"{path}/d.png"]
    (tmp_path / "train.txt").write_text(f"{root}/c.png 0\n{root}/x/../d.png 1\nc.png 1\n")
    with pytest.raises(DataError, match=r"2 faults: .*leads out.*: c\.png is listed before"):
        list_files(**given)


def test_messages_about_the_current_folder_name_it(tmp_path, monkeypatch):
    given = text_lists(tmp_path, "gone.png 0\nd.png 1\n")
    monkeypatch.chdir(tmp_path / "root")
    with pytest.raises(DataError, match=f"^{tmp_path}/root: gone.png: cannot be read"):
        load_list(**{**given, "path": "."})


def test_parts_that_lead_out_are_refused_as_before(tmp_path):
    for line in ("/a/../c.png", "/c.png"):
        given = text_lists(tmp_path, f"{line} 0\nd.png 1\n", path_parts=2)
        with pytest.raises(DataError, match=r"leads out of data\.path"):
            list_files(**given)


@pytest.fixture
def published(tmp_path):
    """Unpacks a list of the folder that PURENOISE_JAX_LISTS names, `NAME.txt.xz` or `NAME.txt`."""
    folder = os.environ.get("PURENOISE_JAX_LISTS")
    if not folder:
        pytest.skip("PURENOISE_JAX_LISTS does not name the folder of published lists")

    def unpacked(name):
        file, packed = (Path(folder) / f"{name}.txt{end}" for end in ("", ".xz"))
        if not (file.exists() or packed.exists()):
            pytest.skip(f"{name}.txt is not in the folder of published lists")
        content = file.read_bytes() if file.exists() else lzma.decompress(packed.read_bytes())
        (tmp_path / file.name).write_bytes(content)
        return str(tmp_path / file.name)

    return unpacked


def class_counts(files, split):
    return np.bincount([label for _, label in files.splits[split]], minlength=len(files.classes))


@pytest.mark.slow
def test_the_published_lists_of_places_lt_have_the_published_counts(published, tmp_path):
    """Liu et al. 2019: 62,500 training images, 4,980 to 5 a class; 20 and 100 of each to measure."""
    chosen = {
        f"{split}_list": published(f"Places_LT_{split}") for split in ("train", "val", "test")
    }
    files = list_files("places_lt", str(tmp_path), Lists(**chosen))
    train = class_counts(files, "train")
    assert (train.sum(), len(train), train.max(), train.min()) == (62_500, 365, 4_980, 5)
    assert class_counts(files, "val").tolist() == [20] * 365
    assert class_counts(files, "test").tolist() == [100] * 365
    place, label = files.splits["train"][0]
    assert (place, label) == (tmp_path / "train/airfield/00004851.jpg", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "each"),
    [
        ("ImageNet_LT_val", 1_000, 20),
        ("ImageNet_LT_test", 1_000, 50),
        ("iNaturalist18_val", 8_142, 3),
    ],
)
def test_published_lists_to_measure_with_are_balanced(published, tmp_path, name, classes, each):
    """Liu et al. 2019 and Van Horn et al. 2018; 20,000, 50,000 and 24,426 images."""
    files = list_files("", str(tmp_path), Lists(train_list=published(name)))
    assert class_counts(files, "train").tolist() == [each] * classes
