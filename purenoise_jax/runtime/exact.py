"""Rational arithmetic where rounding down a product of floats would lose a whole one."""

from fractions import Fraction

_LARGEST_DENOMINATOR = 10**6


def as_meant(number: float) -> Fraction:
    """The simplest fraction that reads as a float: 29/100 for 0.29, 1/3 for 1 / 3.

    `int(0.29 * 100)` is 28, because 0.29 as a float lies a little below 29/100, and the product
    below 29.

    Args:
        number: finite.

    Returns:
        A fraction that rounds to `number`; with a denominator of at most a million if there is one.
    """
    exact = Fraction(number)
    simple = exact.limit_denominator(_LARGEST_DENOMINATOR)
    return simple if float(simple) == number else exact
