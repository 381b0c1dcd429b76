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
from .plan import Plan, Table
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

TABLES: dict[str, Callable[[Plan], Table]] = {
    "main": main_comparison,
    "resnet32": resnet32,
    "norms": norms,
    "augmentation": augmentation,
    "balanced": balanced,
    "subsets": subsets,
    "normalization": normalization,
    "batch_size": batch_size,
    "noise_ratio": noise_ratio,
    "additive": additive,
    "noise_grad": noise_grad,
    "methods": methods_cifar10,
    "methods_cifar100": methods_cifar100,
    "zada_peers": zada_peers,
    "procrustean": procrustean,
    "simplifying": simplifying,
    "sam": sam_table,
    "two_stage": two_stage,
    "ladder": ladder,
    "ratios": ratios,
    "majority": majority,
    "fitting": fitting,
    "progress": progress,
    "ratio_batch_size": ratio_batch_size,
    "ratio_augmentation": ratio_augmentation,
    "ratio_architecture": ratio_architecture,
    "ratio_pretraining": ratio_pretraining,
    "ratio_methods": ratio_methods,
}
# Networks of tables that have others than WRN-28-10; "" = several.
NETWORKS = dict.fromkeys(("resnet32", "methods", "methods_cifar100", "sam", "progress"), "resnet32")
NETWORKS |= {"fitting": "resnet50_cifar"}
NETWORKS |= dict.fromkeys(("zada_peers", "procrustean", "two_stage", "ladder"), "")
NETWORKS |= dict.fromkeys(("ratio_architecture", "ratio_pretraining"), "")


def make_table(name: str, plan: Plan) -> Table:
    """Makes one of `TABLES`, in which runs that a plan makes the same are once.

    Where `plan.model` replaces the network, it has no published numbers, nor cells with only these.

    Raises:
        ConfigError: the plan does not fit the table, or has the place of a data set that the table
            does not wait for.
    """
    if plan.places:
        without = TABLES[name](dataclasses.replace(plan, places={}))
        waited_for = {cell.needs for cell in without.cells}
        for idle in sorted(plan.places.keys() - waited_for):
            legal = [each for each in DATA_SETS if each in waited_for]
            raise ConfigError(
                f"{OPTION} {idle}: no row of {name} needs it; legal: {', '.join(legal) or 'none'}"
            )
    table = TABLES[name](plan)
    replaced = plan.model not in ("", NETWORKS.get(name, "wrn28_10"))
    if replaced and name not in ("norms", "balanced"):
        table = table.unpublished()
    return table.without_repeats() if plan.model or plan.quick else table
