"""Words of messages."""

import pytest

from purenoise_jax.runtime.errors import counted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((1, "image"), "1 image"),
        ((0, "image"), "0 images"),
        ((2000, "image"), "2,000 images"),
        ((0.5, "epoch"), "0.5 epochs"),
        ((1.0, "epoch"), "1 epoch"),
        ((1, "class", "classes"), "1 class"),
        ((123_456_789, "class", "classes"), "123,456,789 classes"),
    ],
)
def test_a_number_and_its_noun_agree(given, words):
    assert counted(*given) == words
