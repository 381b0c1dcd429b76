"""Successive halving: many short trainings first, and longer ones of the best.

Source: Jamieson and Talwalkar 2016; with any factor, Li et al. 2017 (Hyperband).

READING: the sources give every trial more of the same training. Here each round is a training of
its own, whose whole schedule is scaled to its epochs, because methods that begin late, and drops of
the learning rate, would not be seen in the first part of a long training.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Round(NamedTuple):
    """Trainings of equal length.

    Attributes:
        trials: number of them, the best of the round before.
        epochs: of each.
    """

    trials: int
    epochs: int


def rounds_of(trials: int, factor: int, epochs: int, least: int) -> list[Round]:
    """Returns the rounds: each has a share 1 / `factor` of the trials, `factor` times as long.

    Args:
        trials: of the first round.
        factor: above 1; 0 = one round, all of full length.
        epochs: of the last round.
        least: epochs of a training that is long enough to rank by. There are fewer rounds if the
            first would be shorter.
    """
    count = 1
    if factor:
        while trials // factor**count >= 1 and epochs // factor**count >= least:
            count += 1
    # Without halving there is one round, and 0 ** 0 is 1.
    return [Round(trials // factor**i, epochs // factor ** (count - 1 - i)) for i in range(count)]


def total_epochs(rounds: Sequence[Round]) -> int:
    """Returns the epochs of all trainings together."""
    return sum(one.trials * one.epochs for one in rounds)


def promoted(scores: Sequence[float | None], count: int) -> list[int]:
    """Returns the places of the best scores, the best first, and among equals the first.

    Args:
        scores: of the trials of a round; None = the trial has none, and is left out.
        count: at most so many.
    """
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    return [-place for _, place in sorted(known, reverse=True)[:count]]
