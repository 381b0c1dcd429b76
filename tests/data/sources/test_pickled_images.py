"""tieredImageNet in the pickles in which its authors distribute it: read, and never run."""

import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from purenoise_jax.data.sources.by_feed import load_for
from purenoise_jax.data.sources.pickled_images import PickledImages
from purenoise_jax.data.sources.safe_unpickle import spans_of_arrays, unpickle_arrays
from purenoise_jax.data.sources.tiered_imagenet import load_tiered_imagenet, tiered_imagenet_files
from purenoise_jax.runtime.errors import DataError
from tests import trees
from tests.data.sources.test_cifar_hostile import Call, hostile_pickles


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PURENOISE_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("pickles")
    trees.tiered_imagenet_pickles(root)
    return root


@pytest.fixture
def own(tree, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(tree, tmp_path / "own"))


def load(root, feed="resident", **options):
    given = {"test_split": "", "image_size": 8, **options}
    return load_for(feed, "tiered_imagenet", name="", path=str(root), train_split="", **given)


def test_the_files_of_the_tests_are_those_that_numpy_reads(tree):
    """As the code of the authors loads them."""
    images = pickle.loads((tree / "test_images_png.pkl").read_bytes(), encoding="bytes")
    labels = pickle.loads((tree / "test_labels.pkl").read_bytes(), encoding="bytes")
    assert len(images) == 124 and images[3].dtype == np.uint8 and images[3].shape[1:] == (1,)
    assert labels[b"label_specific"].dtype == np.int32
    assert labels[b"label_specific"].tolist() == [0, 1] * 62
    assert labels[b"label_specific_str"] == [b"crane", b"cat, tom"]


def test_the_step_protocol_is_that_of_folders(tree):
    files = tiered_imagenet_files(str(tree))
    # Two classes of the words "crane": they are different birds.
    assert files.classes == ("dog", "crane", "crane (test)", "cat, tom")
    counts = {
        split: np.bincount([label for _, label in rows]).tolist()
        for split, rows in files.splits.items()
    }
    assert counts == {"train": [10, 10, 5, 5], "val": [3] * 4, "test": [50] * 4}
    order = np.random.RandomState(0).permutation(62)
    # Images of the second class of a split have the odd places.
    shuffled = [f"test_images_png.pkl[{2 * i + 1}]" for i in order]
    found = [path.name for rows in ("test", "val", "train") for path, k in files.splits[rows]
             if k == 3]  # fmt: skip
    assert found == shuffled[:58]
    tuning = tiered_imagenet_files(str(tree), test_split="val")
    assert tuning.classes == ("dog", "crane", "owl")


@pytest.mark.parametrize(
    ("feed", "protocol"), [("resident", 2), ("mapped", 2), ("decoded", 2), ("decoded", 3),
                           ("decoded", 4)],
)  # fmt: skip
def test_every_feed_and_protocol_has_the_same_images(tree, tmp_path, feed, protocol):
    if protocol == 2:
        root = tree
    else:
        root = tmp_path
        trees.tiered_imagenet_pickles(root, protocol=protocol)
    found = load(root, feed)
    files = tiered_imagenet_files(str(root))
    for split in ("train", "val", "test"):
        images, labels = getattr(found, f"{split}_images")[:], getattr(found, f"{split}_labels")
        assert labels.tolist() == [label for _, label in files.splits[split]]
        for image, (path, label) in zip(images, files.splits[split], strict=True):
            file, _, place = path.name.rstrip("]").partition("[")
            name, number = file.partition("_")[0], label if label < 2 else label - 2
            wanted = trees.pixels(f"{name}{number}_{place}", 8, 8)
            np.testing.assert_array_equal(image, wanted)


def test_no_image_is_read_to_find_its_place(tree):
    """A span is the part of the file that holds the PNG."""
    file = tree / "train_images_png.pkl"
    content = file.read_bytes()
    arrays = pickle.loads(content, encoding="bytes")
    spans = spans_of_arrays(file)
    assert [content[s.start : s.start + s.size] for s in spans] == [a.tobytes() for a in arrays]
    store = PickledImages(tree, ("train",))
    assert store.read("train_images_png.pkl[7]") == arrays[7].tobytes()


def test_large_images_lie_outside_of_frames(tmp_path):
    """Protocol 4 has byte strings of 64 KiB and more outside of its frames."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, n, np.uint8) for n in (100, 70_000, 50, 200_000, 300)]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol=4))
    content = (tmp_path / "a.pkl").read_bytes()
    spans = spans_of_arrays(tmp_path / "a.pkl")
    assert [content[s.start : s.start + s.size] for s in spans] == [a.tobytes() for a in arrays]


@pytest.mark.parametrize("case", hostile_pickles("marker"))
@pytest.mark.parametrize("file", ["train_images_png.pkl", "test_labels.pkl"])
def test_a_hostile_pickle_is_refused_by_the_name_it_asks_for(own, tmp_path, case, file):
    marker = tmp_path / "marker"
    data, named = hostile_pickles(marker)[case]
    (own / file).write_bytes(data)
    with pytest.raises(DataError, match=f"{file}: .*{named}") as end:
        load_tiered_imagenet(name="", path=str(own))
    assert "\n" not in str(end.value) and not marker.exists()


def test_code_behind_good_images_is_not_run(own, tmp_path):
    marker = tmp_path / "marker"
    good = np.zeros(100, np.uint8)
    listed = [good, Call(os.system, f"touch {marker}")]
    (own / "train_images_png.pkl").write_bytes(pickle.dumps(listed, protocol=3))
    with pytest.raises(DataError, match=r"asks for posix.system, which is refused"):
        load(own)
    assert not marker.exists()


def cut(data):
    return data[:-20]


def no_end(data):
    """A byte string that claims four gigabytes."""
    return b"\x80\x02](" + trees.python2_array(np.zeros(99, np.uint8)).replace(
        b"T" + struct.pack("<i", 99), b"B\xff\xff\xff\xff"
    )


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train_images_png.pkl", cut, "damaged pickle"),
        ("train_images_png.pkl", no_end, "the file ends within a value"),
        ("train_images_png.pkl", lambda data: b"\x80\x02]T\xff\xff\xff\xffa.", "negative length"),
        ("train_images_png.pkl", lambda data: b"c" + b"a" * 70_000 + b"\nb\n.", "without an end"),
        ("train_images_png.pkl", lambda data: b"\x80\x02}.", "expected a pickled list, got dict"),
        ("train_images_png.pkl", lambda data: b"\x80\x02]K\x01a.", "entry 0 .* is no array"),
        ("train_images_png.pkl",
         lambda data: b"\x80\x02](" + trees.python2_array(np.zeros(99, np.int32)) + b"e.",
         "only arrays of u1 are accepted"),
        ("train_images_png.pkl", lambda data: b"\x80\x02].", "has 0 images, but .* has 126 labels"),
        ("train_labels.pkl", cut, "damaged pickle"),
        ("train_labels.pkl", lambda data: b"\x80\x02}.", "'label_specific_str' must be a list"),
        ("train_labels.pkl", lambda data: data.replace(b"U\x05crane", b"")[:-1] + b".",
         "has numbers from 0 to 1, but 'label_specific_str' names 1 classes"),
        ("train_labels.pkl", lambda data: data.replace(b"U\x01<", b"U\x01>"), "little-endian"),
    ],
)  # fmt: skip
def test_files_that_are_not_these_are_refused(own, file, change, message):
    (own / file).write_bytes(change((own / file).read_bytes()))
    with pytest.raises(DataError, match=f"{message}") as end:
        load(own)
    assert file in str(end.value) and "\n" not in str(end.value)


def test_a_missing_file_is_named(own):
    (own / "test_labels.pkl").unlink()
    with pytest.raises(DataError, match=r"test_labels\.pkl: cannot be read \(No such file"):
        load(own)


def test_classes_with_too_few_images_are_named(own):
    labels = own / "test_labels.pkl"
    content = labels.read_bytes()
    array = np.tile(np.arange(2, dtype=np.int32), 62)
    fewer = np.where(np.arange(124) < 10, 0, array).astype(np.int32)
    labels.write_bytes(content.replace(array.tobytes(), fewer.tobytes()))
    with pytest.raises(DataError, match="test/cat, tom: has 57 images, wanted 58"):
        load(own)


@pytest.mark.parametrize("feed", ["resident", "mapped", "decoded"])
def test_a_damaged_png_is_named_or_left_out(own, feed):
    file = own / "train_images_png.pkl"
    place = int(tiered_imagenet_files(str(own)).splits["train"][0][0].name[21:-1])
    span = spans_of_arrays(file)[place]
    content = bytearray(file.read_bytes())
    content[span.start + span.size // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"train_images_png\.pkl\[{place}\]: .*"):
        load(own, feed)
    kept = load(own, feed, skips_bad=True)
    assert len(kept.left_out) == 1 or feed == "decoded"


def test_damage_since_the_first_start_is_noticed(own):
    file = own / "train_images_png.pkl"
    images = load(own, "decoded").train_images
    content = bytearray(file.read_bytes())
    for span in spans_of_arrays(file):
        content[span.start + 40] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"train_images_png\.pkl\[\d+\]: is damaged or has changed"):
        images[:1]


def test_integers_are_accepted_where_they_are_asked_for_alone():
    data = b"\x80\x02}(U\x01a" + trees.python2_array(np.arange(3, dtype=np.int32)) + b"u."
    with pytest.raises(DataError, match="x: only arrays of u1 are accepted"):
        unpickle_arrays(data, "x")
    found = unpickle_arrays(data, "x", ("u1", "i4"))[b"a"]
    assert found.tolist() == [0, 1, 2] and found.dtype == np.int32
