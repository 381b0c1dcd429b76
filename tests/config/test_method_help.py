"""The help on methods: every one has a line and a source."""

import pytest

from configs import digits_lt
from purenoise_jax.config.flags import help_text
from purenoise_jax.config.method_help import sources_of
from purenoise_jax.methods import METHODS, as_method
from purenoise_jax.methods.pure_noise import pure_noise


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_line_and_a_source(name):
    lines = help_text(digits_lt.get_config()).splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith(f"  {name} ")]
    assert lines[at].endswith(".") and len(lines[at]) < 125
    source = lines[at + 1].strip()
    assert source == sources_of(as_method(METHODS[name]).apply) != "no source named"
    assert source[-4:].isdigit()


def test_sources_are_cited_whole():
    assert sources_of(pure_noise).startswith("Zada, Benou and Irani 2022")

    def of_a_user(recipe, stats):
        return recipe

    of_a_user.__module__ = "nowhere"
    assert sources_of(of_a_user) == "no source named"
