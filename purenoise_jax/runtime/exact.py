"""Exact fractions in place of floats, for products that are rounded down to an integer."""

from fractions import Fraction

_LARGEST_DENOMINATOR = 10**6


def as_meant(number: float) -> Fraction:
    """Returns the simplest fraction that rounds to a float: 29/100 for 0.29, 1/3 for 1 / 3.

    With floats, `int(0.29 * 100)` is 28, because 0.29 lies a little below 29/100, and the product
    below 29.

    Args:
        number: finite.

    Returns:
        A fraction that rounds to `number`, with a denominator of at most a million if possible.
    """
    exact = Fraction(number)
    simple = exact.limit_denominator(_LARGEST_DENOMINATOR)
    return simple if float(simple) == number else exact
