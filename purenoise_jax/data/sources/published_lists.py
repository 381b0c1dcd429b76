"""Class counts of published training lists, with which a list is compared if it has the name."""

import dataclasses

import numpy as np

from purenoise_jax.runtime.errors import DataError


@dataclasses.dataclass(frozen=True)
class Published:
    """Counts of a training list.

    Attributes:
        images: their number.
        classes: their number.
        largest: images of the largest class; None = it is not compared.
        smallest: images of the smallest class; None = it is not compared.
    """

    images: int
    classes: int
    largest: int | None = None
    smallest: int | None = None

    def __str__(self) -> str:
        sizes = "" if self.largest is None else f", {self.largest:,} to {self.smallest:,} in each"
        return f"{self.images:,} images of {self.classes:,} classes{sizes}"


# By `data.name`. Sources: the lists of Liu et al. 2019 (the first two); Van Horn et al. 2018; the
# lists of Kim et al. 2020; the training table of the competition.
PUBLISHED = {
    "imagenet_lt": Published(115_846, 1_000, 1_280, 5),
    "places_lt": Published(62_500, 365, 4_980, 5),
    "inaturalist18": Published(437_513, 8_142),
    "celeba5": Published(6_651, 5, 2_423, 227),
    "aptos": Published(3_662, 5),
}


def check_published(name: str, labels: np.ndarray, num_classes: int) -> None:
    """Compares a training list with the published one of its name, if there is one.

    Args:
        name: of the data set.
        labels: i32[N], values 0..K-1.
        num_classes: K.

    Raises:
        DataError: the counts differ; the line has both.
    """
    wanted = PUBLISHED.get(name)
    if wanted is None:
        return
    counts = np.bincount(labels, minlength=num_classes)
    found = Published(len(labels), num_classes)
    if wanted.largest is not None:
        found = dataclasses.replace(found, largest=int(counts.max()), smallest=int(counts.min()))
    if found != wanted:
        raise DataError(
            f"data.train_list has {found}, but the published list of data.name={name} has "
            f"{wanted}; with another data.name it is not compared"
        )
