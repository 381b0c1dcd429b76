"""The method that docs/add_a_method.md adds."""

import pytest

from purenoise_jax.methods import METHODS
from tests.docs.pages import DOCS, blocks


@pytest.fixture
def poly1():
    code = blocks(DOCS / "add_a_method.md", "python")[0]
    exec(compile(code, "add_a_method.md", "exec"), {})
    yield METHODS["poly1"]
    del METHODS["poly1"]
