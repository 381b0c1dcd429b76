"""The help on methods: every one has a line and a source."""

import pytest

from configs import digits_lt
from purenoise_jax.config.flags import help_text
from purenoise_jax.config.method_help import method_lines, sources_of
from purenoise_jax.methods import METHODS, as_method
from purenoise_jax.methods.pure_noise import pure_noise


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_line_and_a_source(name):
    lines = help_text(digits_lt.get_config()).splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith(f"  {name} ")]
    assert lines[at].endswith(".") and len(lines[at]) < 125
    source = lines[at + 1].strip()
    assert source == sources_of(as_method(METHODS[name])) != "no source named"
    assert source[-4:].isdigit()


def test_sources_are_cited_whole():
    assert sources_of(as_method(pure_noise)).startswith("Zada, Benou and Irani 2022")

    def of_a_user(recipe, stats):
        return recipe

    of_a_user.__module__ = "nowhere"
    assert sources_of(as_method(of_a_user)) == "no source named"


def test_every_method_of_a_file_has_its_own_sources_and_those_of_its_file_name_them():
    sources = {name: sources_of(as_method(entry)) for name, entry in METHODS.items()}
    assert sources["imbsam"] == "Zhou et al. 2023" and sources["focal_sam"] == "Li et al. 2025"
    assert sources["label_aware_smoothing"] == "Zhong et al. 2021"
    for name, entry in METHODS.items():
        of_file = sources_of(as_method(entry)._replace(source="")).split("; ")
        assert {*sources[name].split("; ")} <= {*of_file}, name


def test_no_two_methods_have_the_same_lines():
    lines = method_lines()
    width = max(map(len, METHODS))
    pairs = [(lines[i][width + 4 :], lines[i + 1]) for i in range(0, len(lines), 2)]
    assert len({*pairs}) == len(pairs) == len(METHODS)
    deferred = {name for name, (line, _) in zip(METHODS, pairs, strict=True) if "Deferred" in line}
    assert deferred == {"drs", "open", "drw", "m2m", "adrw", "tla"}
