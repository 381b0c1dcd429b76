"""Work on threads: results come in order, and only so much ahead."""

import time

import pytest

from purenoise_jax.runtime import threads
from purenoise_jax.runtime.threads import GROUP, GROUPS, in_order


def test_results_come_in_the_order_of_the_arguments():
    def slow_first(number):
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    assert list(in_order(slow_first, iter(range(3 * GROUP + 1)))) == [
        i * i for i in range(3 * GROUP + 1)
    ]
    assert list(in_order(slow_first, [])) == []


def test_only_a_few_groups_are_begun_ahead(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    taken = []

    def arguments():
        for number in range(10_000):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, arguments())
    for expected in range(1_000):
        assert next(results) == expected
        assert len(taken) <= expected + (2 * GROUPS + 2) * GROUP
    results.close()


def test_an_error_ends_it():
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 / (40 - number), range(100)))
