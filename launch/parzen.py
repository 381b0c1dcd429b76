"""Draws by the tree-structured Parzen estimator, which learns from the trials before.

Source: Bergstra, Bardenet, Bengio and Kegl 2011, "Algorithms for hyper-parameter optimization",
section 4, as optuna's TPESampler computes it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .search_space import (
    Dimension,
    distributions_of,
    draw,
    import_optuna,
    params_of,
    texts_of,
)

# Trials at the beginning that are drawn at random, as many as the sampler's default.
STARTUP = 10
# Proposals in a row that were there before, after which a trial is drawn at random.
REPEATS = 20


def propose(
    space: Sequence[Dimension],
    trials: Sequence[Mapping[str, str]],
    scores: Sequence[float | None],
    count: int,
    seed: int,
) -> list[dict[str, str]]:
    """Returns further trials, a function of the arguments alone.

    No state of a sampler is kept, so that a search that was stopped goes on with the same trials:
    the random numbers depend on the seed and on the number of trials before. Each of several trials
    is proposed as if those proposed with it were among the bad ones, so that they are apart.

    Args:
        space: what is searched.
        trials: those before, as text.
        scores: of each, more is better; None = it has none and is left out.
        count: of further trials; fewer are returned if the space has no more.
        seed: of the search.

    Raises:
        ConfigError: optuna is not installed.
    """
    optuna = import_optuna()
    mixed = np.random.SeedSequence([seed, len(trials)]).generate_state(1)
    sampler = optuna.samplers.TPESampler(seed=int(mixed[0]), n_startup_trials=1, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = distributions_of(space, optuna)
    for texts, score in zip(trials, scores, strict=True):
        if score is not None:
            params = params_of(space, texts)
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=score)
            )
    there = [*trials]
    found: list[dict[str, str]] = []
    while len(found) < count:
        for _ in range(REPEATS):
            asked = study.ask(distributions)
            texts = texts_of(space, asked.params)
            if texts not in there:
                break
            # One that was there before must not push the others away.
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            left = [one for one in draw(space, len(there) + 1, seed) if one not in there]
            if not left:
                break
            texts = left[0]
        there.append(texts)
        found.append(texts)
    return found
