"""The examples in the docstrings of public names run, and print what they say."""

import doctest
import importlib
import inspect

import pytest

import purenoise_jax

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted({getattr(purenoise_jax, n).__module__ for n in purenoise_jax.__all__})


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    failures, tried = doctest.testmod(importlib.import_module(module), optionflags=OPTIONS)
    assert tried and not failures


@pytest.mark.parametrize("name", purenoise_jax.__all__)
def test_every_public_name_has_an_example(name):
    lines = [line.strip() for line in inspect.getdoc(getattr(purenoise_jax, name)).splitlines()]
    lines = [line for line in lines if line.startswith(">>> ")]
    assert 2 <= len([line for line in lines if not line.startswith(">>> import ")]) <= 4
