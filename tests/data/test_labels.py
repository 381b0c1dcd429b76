"""Every function with labels refuses the same bad labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from purenoise_jax.data.labels import as_labels
from purenoise_jax.data.longtail import long_tail_indices, read_indices
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.runtime.errors import DataError

GOOD = np.array([0, 1, 2, 0, 1, 2])
BAD: dict[str, tuple[np.ndarray, str]] = {
    "bool": (GOOD == 1, r"got bool: .*astype\(np\.int64\)"),
    "float": (GOOD.astype(np.float32), "got float32: no class numbers, even if all are integers"),
    "NaN": (np.array([0, np.nan]), "got float64"),
    "complex": (GOOD.astype(complex), "got complex128"),
    "text": (np.array(["cat", "dog"]), "got <U3: text; number the classes from 0"),
    "bytes": (np.array([b"0", b"1"]), r"got \|S1: text"),
    "objects": (np.array([0, None]), "got object: Python objects"),
    "dates": (np.array(["2000-01-01"], "datetime64[D]"), r"got datetime64\[D\]"),
    "one-hot": (
        np.eye(3, dtype=np.uint8)[GOOD],
        r"shape \[6, 3\] look one-hot; use labels\.argmax",
    ),
    "one-hot floats": (np.eye(3)[GOOD], r"float64 and shape \[6, 3\] look one-hot; use"),
    "one-hot bools": (np.eye(3, dtype=bool)[GOOD], "look one-hot"),
    "several labels": (np.ones((6, 3), int), r"shape \[6, 3\], but an image has one label"),
    "one row": (GOOD[None], r"shape \[1, 6\], but"),
    "one number": (np.array(3), r"shape \[\], but"),
    "negative": (
        GOOD - 1,
        r"2 labels are (below 0|outside 0\.\.2), the first are \[0\] = -1, \[3\] = -1",
    ),
}
TAKERS: dict[str, Callable[[np.ndarray], Any]] = {
    "as_labels": lambda labels: as_labels("labels", labels),
    "long_tail_indices": lambda labels: long_tail_indices(labels, imbalance_ratio=1),
    "EpochSampler": lambda labels: EpochSampler(labels, 3, 4, seed=0),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_refused_in_one_line(taker: str, case: str) -> None:
    labels, message = BAD[case]
    with pytest.raises(DataError, match=message) as refusal:
        TAKERS[taker](labels)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_a_column_is_read_as_its_entries(dtype: type) -> None:
    flat, column = GOOD.astype(dtype), GOOD.astype(dtype)[:, None]
    assert as_labels("x", column).tolist() == as_labels("x", flat).tolist() == GOOD.tolist()
    for rule in ("first", "cao"):
        chosen = [
            long_tail_indices(x, imbalance_ratio=2, rule=rule).tolist() for x in (flat, column)
        ]
        assert chosen[0] == chosen[1]
    draws = [
        EpochSampler(x, 3, 6, seed=1).epoch(0, np.full(3, 1 / 3, np.float32))[0].tolist()
        for x in (flat, column)
    ]
    assert draws[0] == draws[1]


def test_a_sampler_refuses_labels_of_more_classes() -> None:
    with pytest.raises(
        DataError, match=r"2 labels are outside 0\.\.1, the first are \[2\] = 2, \[5\] = 2"
    ):
        EpochSampler(GOOD, 2, 4, seed=0)


def test_an_image_has_one_label() -> None:
    with pytest.raises(DataError, match=r"^here: 7 images, but 6 labels"):
        as_labels("here", GOOD, images=7)
    with pytest.raises(DataError, match="must be an integer array, got list"):
        as_labels("here", [0, 1])


def test_a_long_tail_of_no_labels_is_refused() -> None:
    with pytest.raises(DataError, match="labels: there are none"):
        long_tail_indices(np.zeros(0, int), imbalance_ratio=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([True, False]), r"got bool\[2\], a mask: save np\.flatnonzero of it"),
        (np.array([0.0, 1.0]), r"got float64\[2\]"),
        (np.array(["0", "1"]), r"got <U1\[2\]"),
        (np.array([[0], [1]]), r"got int64\[2, 1\]"),
        (np.array([1, 2**63], np.uint64), "index 9223372036854775808 is outside"),
    ],
)
def test_index_files_of_other_dtypes_are_refused(
    tmp_path: Any, content: np.ndarray, message: str
) -> None:
    path = tmp_path / "subset.npy"
    np.save(path, content)
    with pytest.raises(DataError, match=rf"data\.indices=.*subset\.npy: .*{message}"):
        read_indices(str(path), 100)
