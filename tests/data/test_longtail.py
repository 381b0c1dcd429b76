"""Long-tailed subsets: class counts, chosen images, fingerprints and index files."""

import os

import numpy as np
import pytest

from purenoise_jax.data.longtail import (
    fingerprint,
    long_tail_counts,
    long_tail_indices,
    read_indices,
    thin,
)
from purenoise_jax.data.sources.cifar import load_cifar
from purenoise_jax.runtime.errors import ConfigError, DataError

# Numbers of images in the papers and the public index lists, by classes and ratio.
TOTALS = {
    (10, 10): 20431,
    (10, 20): 17023,
    (10, 50): 13996,
    (10, 100): 12406,
    (10, 200): 11203,
    (10, 500): 10011,
    (10, 1000): 9324,
    (100, 10): 19573,
    (100, 20): 15907,
    (100, 50): 12608,
    (100, 100): 10847,
    (100, 200): 9502,
}
CIFAR10_FINGERPRINTS = {
    "cao": "f6b70bceea940e37c3ee9d38d555432dbf6d1805dc339765e7b9fc5a6da52217",
    "first": "a88e9782bf8db27ced22a1f5f04ccd566a60ad301c84a752910324161a0465ec",
}


@pytest.mark.parametrize(("num_classes", "ratio"), TOTALS)
def test_totals_are_the_published_ones(num_classes, ratio):
    counts = long_tail_counts(50000 // num_classes, num_classes, imbalance_ratio=ratio)
    assert counts.sum() == TOTALS[num_classes, ratio]
    assert counts[0] == 50000 // num_classes
    assert (np.diff(counts) <= 0).all()


def test_cifar10_counts_at_the_papers_ratios():
    at = {r: long_tail_counts(5000, 10, imbalance_ratio=r).tolist() for r in (50, 100)}
    assert at[100] == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert at[50] == [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]


def test_the_published_counts_are_those_of_the_float64_expression():
    """The published lists come from exactly this expression, so it must not change."""
    for num_classes, largest in ((10, 5000), (100, 500)):
        for ratio in (10, 20, 50, 100, 200, 256, 500):
            share, last = 1 / ratio, num_classes - 1
            published = [int(largest * share ** (i / last)) for i in range(num_classes)]
            counts = long_tail_counts(largest, num_classes, imbalance_ratio=ratio)
            assert counts.tolist() == published


@pytest.mark.parametrize("profile", ["exp", "step"])
def test_the_smallest_class_is_the_largest_over_the_ratio_exactly(profile):
    for ratio in range(1, 300):
        for smallest in (1, 2, 7):
            counts = long_tail_counts(
                smallest * ratio, 4, imbalance_ratio=float(ratio), profile=profile
            )
            assert counts[-1] == smallest and counts[0] == smallest * ratio
    for largest, ratio, smallest in ((333, 33.3, 10), (100, 100 / 3, 3), (1001, 1.001, 1000)):
        counts = long_tail_counts(largest, 4, imbalance_ratio=ratio, profile=profile)
        assert counts[-1] == smallest
        assert long_tail_counts(largest - 1, 4, imbalance_ratio=ratio, profile=profile)[-1] < (
            smallest
        )


@pytest.mark.parametrize("base", range(2, 30))
def test_integers_in_the_middle_of_the_profile_are_exact(base):
    # A ratio of base ** 3 over four classes: every class is an integer.
    counts = long_tail_counts(5 * base**3, 4, imbalance_ratio=base**3)
    assert counts.tolist() == [5 * base**3, 5 * base**2, 5 * base, 5]


def test_step_profile_keeps_all_of_the_first_half():
    counts = long_tail_counts(5000, 10, imbalance_ratio=100, profile="step")
    assert counts.tolist() == [5000] * 5 + [50] * 5


@pytest.mark.parametrize("rule", ["cao", "first"])
def test_indices_have_the_counts_and_are_sorted_and_distinct(rule):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(5), 200))
    indices = long_tail_indices(labels, imbalance_ratio=20, rule=rule)
    assert indices.dtype == np.int64
    assert (np.diff(indices) > 0).all()
    expected = long_tail_counts(200, 5, imbalance_ratio=20)
    np.testing.assert_array_equal(np.bincount(labels[indices]), expected)


def test_first_rule_takes_the_first_of_each_class():
    labels = np.array([1, 0, 0, 1, 1, 0, 0, 1])
    indices = long_tail_indices(labels, imbalance_ratio=4, rule="first")
    assert indices.tolist() == [0, 1, 2, 5, 6]


def test_cao_rule_depends_only_on_its_seed():
    labels = np.repeat(np.arange(4), 100)
    first, same, other = (
        fingerprint(long_tail_indices(labels, imbalance_ratio=10, seed=s)) for s in (0, 0, 1)
    )
    assert first == same != other


def test_profile_is_exact_when_classes_differ_in_size():
    labels = np.repeat(np.arange(3), [130, 100, 111])
    indices = long_tail_indices(labels, imbalance_ratio=10)
    assert np.bincount(labels[indices]).tolist() == [100, 31, 10]


def test_natural_profile_keeps_everything():
    labels = np.array([0, 0, 0, 1])
    assert long_tail_indices(labels, imbalance_ratio=100, profile="natural").tolist() == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("rule", ["cao", "first"])
def test_given_counts_are_those_of_the_profile_with_the_same_numbers(rule):
    labels = np.tile(np.arange(3), 40)
    profile = long_tail_indices(labels, imbalance_ratio=8, rule=rule, seed=5)
    options = dict(imbalance_ratio=0.0, profile="auto", rule=rule, seed=5)
    given = long_tail_indices(labels, **options, class_counts=np.bincount(labels[profile]).tolist())
    np.testing.assert_array_equal(given, profile)
    fewer = long_tail_indices(labels, **options, class_counts=(10, 14, 4))
    assert np.bincount(labels[fewer]).tolist() == [10, 14, 4]
    assert set(fewer) < set(given)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((3, 5), r"class_counts=\(3, 5\) has 2 numbers, but the data have 3 classes; legal: one"),
        ((3, 11, 2), r"class_counts=\(3, 11, 2\): class 1 cannot have 11 training.*1 .. 10$"),
        ((3, 5, 0), r"class 2 cannot have 0 training images; legal: 1 .. 10$"),
    ],
)
def test_counts_that_the_data_cannot_give_are_refused(counts, message):
    with pytest.raises(ConfigError, match=message):
        long_tail_indices(np.tile(np.arange(3), 10), imbalance_ratio=0.0, class_counts=counts)


def test_one_class_and_ratio_one():
    assert long_tail_indices(np.zeros(5, int), imbalance_ratio=3).tolist() == [0, 1, 2, 3, 4]
    labels = np.repeat([0, 1], 4)
    assert len(long_tail_indices(labels, imbalance_ratio=1)) == 8


@pytest.mark.parametrize("ratio", [0.5, 0, -1, float("nan"), float("inf")])
def test_ratio_below_one_is_refused(ratio):
    with pytest.raises(ConfigError, match=r"imbalance_ratio=.* at least 1"):
        long_tail_counts(100, 10, imbalance_ratio=ratio)


def test_class_without_an_image_is_refused():
    with pytest.raises(
        ConfigError, match=r"leaves classes \[9\] .* at most 100, or data\.profile=natural"
    ):
        long_tail_counts(100, 10, imbalance_ratio=150)
    with pytest.raises(DataError, match=r"classes \[1\] have no training image"):
        long_tail_indices(np.array([0, 0, 2, 2]), imbalance_ratio=2)


@pytest.mark.parametrize(
    "labels", [np.array([]), np.array([0.0, 1.0]), np.array([-1, 0]), np.array([[0, 1]])]
)
def test_arrays_that_are_not_labels_are_refused(labels):
    with pytest.raises(DataError, match="labels"):
        long_tail_indices(labels, imbalance_ratio=2)


def test_seed_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"data\.seed=-1 must lie in 0 \.\. 4294967295"):
        long_tail_indices(np.array([0, 1]), imbalance_ratio=1, seed=-1)


@pytest.mark.parametrize(("name", "legal"), [("profile", "exp, step"), ("rule", "cao, first")])
def test_unknown_names_are_refused(name, legal):
    with pytest.raises(ConfigError, match=legal):
        long_tail_indices(np.repeat([0, 1], 9), imbalance_ratio=2, **{name: "expp"})


def test_fingerprint_is_of_the_sorted_lines():
    # printf '1\\n20\\n300\\n' | sha256sum
    expected = "662d36739ac3c0fe3040b72335e47ddc7152d57450649a8aee07f2a4e7109d1f"
    assert fingerprint(np.array([300, 1, 20])) == expected


def test_index_files(tmp_path):
    text, array = tmp_path / "subset.txt", tmp_path / "subset.npy"
    text.write_text("5\n3\n\n9\n")
    np.save(array, np.array([5, 3, 9]))
    assert read_indices(str(text), 10).tolist() == [3, 5, 9]
    assert read_indices(str(array), 10).tolist() == [3, 5, 9]


@pytest.mark.parametrize(
    ("content", "message"),
    [("3\n10\n", "10 is outside 0 .. 9"), ("-1\n", "-1 is outside"), ("3\n3\n", "3 occurs twice"),
     ("3.5\n", "cannot be read"), ("", "wanted integers")],
)  # fmt: skip
def test_bad_index_files_are_refused(tmp_path, content, message):
    path = tmp_path / "subset.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_indices(str(path), 10)
    with pytest.raises(DataError, match="cannot be read"):
        read_indices(str(tmp_path / "absent.txt"), 10)


def npy(header: str, rest: bytes = b"") -> bytes:
    """A .npy file with the given header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + rest


HOSTILE = {
    "a zip": (lambda path: np.savez(path.with_suffix(".npz"), np.arange(3)), "magic string"),
    "objects": (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "allow_pickle"),
    "a huge shape": (
        lambda path: path.write_bytes(npy(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({2**61},)}}")),
        "cannot be read as a list of integers",
    ),
    "nested brackets": (
        lambda path: path.write_bytes(npy("{'descr': '<i8', 'shape': " + "(" * 3000)),
        "cannot be read as a list of integers",
    ),
    "nested signs": (
        lambda path: path.write_bytes(npy("-" * 9000 + "1")),
        "cannot be read as a list of integers",
    ),
    "an odd type": (
        lambda path: path.write_bytes(
            npy("{'descr': [('a', 3)], 'fortran_order': False, 'shape': (1,)}", bytes(8))
        ),
        "cannot be read as a list of integers",
    ),
    "more behind it": (
        lambda path: path.write_bytes(
            npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", bytes(9))
        ),
        "it holds more data than its header says",
    ),
    "half of it": (
        lambda path: path.write_bytes(
            npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}", bytes(8))
        ),
        "cannot be read as a list of integers",
    ),
    "a pipe": (lambda path: os.mkfifo(path), "is a named pipe"),
    "a folder": (lambda path: path.mkdir(), "is a folder, not a plain file"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_npy_is_refused_in_one_line(tmp_path, case):
    make, message = HOSTILE[case]
    path = tmp_path / "subset.npy"
    make(path)
    if case == "a zip":
        path.with_suffix(".npz").rename(path)
    with pytest.raises(DataError, match=message) as refusal:
        read_indices(str(path), 10)
    assert str(refusal.value).startswith(f"data.indices={path}: cannot be read as a list of")


@pytest.mark.skipif(
    not os.environ.get("PURENOISE_JAX_CIFAR"),
    reason="PURENOISE_JAX_CIFAR does not name a folder with the official CIFAR files",
)
@pytest.mark.parametrize("rule", ["cao", "first"])
def test_fingerprints_on_the_real_labels(rule):
    path = os.environ["PURENOISE_JAX_CIFAR"]
    labels = load_cifar(name="cifar10", path=path, image_size=0).train_labels
    indices = long_tail_indices(labels, imbalance_ratio=100, rule=rule)
    assert fingerprint(indices) == CIFAR10_FINGERPRINTS[rule]


def test_a_thinner_subset_keeps_its_profile():
    labels = np.repeat([0, 1, 2, 3], [100, 40, 10, 1])
    chosen = np.flatnonzero(labels >= 0)
    thinner = thin(chosen, labels, 20)
    assert np.bincount(labels[thinner]).tolist() == [20, 8, 2, 1]
    np.testing.assert_array_equal(thinner[:20], np.arange(20))
    np.testing.assert_array_equal(thin(chosen, labels, 100), chosen)
    assert np.bincount(labels[thin(chosen, labels, 1)]).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("line", ["99999999999999999999999999", "1e3", "0x10", "nan", "1 2", "²"])
def test_lines_that_are_not_integers_are_refused(line, tmp_path):
    path = tmp_path / "subset.txt"
    path.write_text(f"1\n{line}\n")
    with pytest.raises(DataError, match=r"subset\.txt: cannot be read as a list of integers"):
        read_indices(str(path), 100)


@pytest.mark.parametrize("claim", [10**13, 2**62, 10**30])
def test_an_index_file_with_a_huge_shape_in_its_header_is_refused(claim, tmp_path):
    path = tmp_path / "subset.npy"
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({claim},), }}".ljust(117)
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + b"\n" + bytes(80))
    with pytest.raises(DataError, match=r"subset\.npy: cannot be read as a list of integers"):
        read_indices(str(path), 100)
