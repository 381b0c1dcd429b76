"""Every table by name: those of the pure-noise papers, of methods, and the studies."""

import dataclasses
from collections.abc import Callable

from purenoise_jax.runtime.errors import ConfigError

from .data_sets import DATA_SETS, OPTION
from .ladder import ladder
from .method_tables import methods_cifar10, methods_cifar100
from .noise_papers import (
    additive,
    augmentation,
    balanced,
    batch_size,
    main_comparison,
    noise_grad,
    noise_ratio,
    normalization,
    norms,
    resnet32,
    subsets,
)
from .plan import MINI_EPOCHS, SEEDS, Plan, Table
from .procrustean import procrustean
from .sam_table import sam_table
from .simplifying import simplifying
from .studies.fitting import fitting
from .studies.majority import majority
from .studies.progress import progress
from .studies.ratio_architecture import ratio_architecture
from .studies.ratio_augmentation import ratio_augmentation
from .studies.ratio_batch_size import ratio_batch_size
from .studies.ratio_methods import ratio_methods
from .studies.ratio_pretraining import ratio_pretraining
from .studies.ratios import ratios
from .two_stage import two_stage
from .zada_peers import zada_peers


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of `TABLES`.

    Attributes:
        make: makes the table of a plan.
        network: that of the source; "" = several.
        mini_epochs: epochs of the mini tier for every 200 of the source.
        mini_seeds: runs of every cell in the mini tier; of a study, as many as two CPU cores finish
            in half an hour.
    """

    make: Callable[[Plan], Table]
    network: str = "wrn28_10"
    mini_epochs: int = MINI_EPOCHS
    mini_seeds: int = SEEDS


TABLES: dict[str, Entry] = {
    "main": Entry(main_comparison),
    "resnet32": Entry(resnet32, "resnet32"),
    "norms": Entry(norms),
    "augmentation": Entry(augmentation),
    "balanced": Entry(balanced),
    "subsets": Entry(subsets),
    "normalization": Entry(normalization),
    "batch_size": Entry(batch_size),
    "noise_ratio": Entry(noise_ratio),
    "additive": Entry(additive),
    "noise_grad": Entry(noise_grad),
    "methods": Entry(methods_cifar10, "resnet32", mini_seeds=6),
    "methods_cifar100": Entry(methods_cifar100, "resnet32", mini_seeds=3),
    "zada_peers": Entry(zada_peers, ""),
    "procrustean": Entry(procrustean, ""),
    "simplifying": Entry(simplifying),
    "sam": Entry(sam_table, "resnet32"),
    "two_stage": Entry(two_stage, ""),
    "ladder": Entry(ladder, ""),
    "ratios": Entry(ratios, mini_seeds=3),
    "majority": Entry(majority, mini_seeds=3),
    "fitting": Entry(fitting, "resnet50_cifar", mini_epochs=27, mini_seeds=1),
    "progress": Entry(progress, "resnet32", mini_seeds=1),
    "ratio_batch_size": Entry(ratio_batch_size, mini_epochs=5, mini_seeds=2),
    "ratio_augmentation": Entry(ratio_augmentation, mini_epochs=5, mini_seeds=2),
    "ratio_architecture": Entry(ratio_architecture, "", mini_epochs=5, mini_seeds=2),
    "ratio_pretraining": Entry(ratio_pretraining, "", mini_epochs=5, mini_seeds=2),
    "ratio_methods": Entry(ratio_methods, mini_epochs=5, mini_seeds=2),
}


def make_table(name: str, plan: Plan) -> Table:
    """Makes one of `TABLES`, in which runs that a plan makes the same are once.

    Where `plan.model` replaces the network, it has no published numbers, nor cells with only these.

    Raises:
        ConfigError: the plan does not fit the table, or has the place of a data set that the table
            does not wait for.
    """
    entry = TABLES[name]
    if plan.places:
        without = entry.make(dataclasses.replace(plan, places={}))
        waited_for = {cell.needs for cell in without.cells}
        for idle in sorted(plan.places.keys() - waited_for):
            legal = [each for each in DATA_SETS if each in waited_for]
            raise ConfigError(
                f"{OPTION} {idle}: no row of {name} needs it; legal: {', '.join(legal) or 'none'}"
            )
    table = entry.make(plan)
    replaced = plan.model not in ("", entry.network)
    if replaced and name not in ("norms", "balanced"):
        table = table.unpublished()
    return table.without_repeats() if plan.model or plan.quick else table
