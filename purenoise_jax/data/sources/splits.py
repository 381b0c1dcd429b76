"""Checks the splits that a config chooses for training and test."""

from purenoise_jax.runtime.errors import ConfigError, shown


def refuse_odd_splits(train: str, test: str) -> None:
    """Refuses names with separators, and the same name twice.

    Args:
        train: name of the training split.
        test: name of the test split.

    Raises:
        ConfigError: a name is not legal, or both are the same.
    """
    for field, name in (("data.train_split", train), ("data.test_split", test)):
        if name in (".", "..") or "/" in name or "\\" in name:
            raise ConfigError(
                f"{field}={name!r} is not legal; legal: the plain name of a split or folder"
            )
    if train == test:
        raise ConfigError(
            f"data.train_split and data.test_split are both {train!r}, so the test would use "
            "training images; set one of them to another split"
        )


def refuse_chosen_splits(what: str, train_split: str, test_split: str) -> None:
    """Refuses splits that a config chooses where there are none to choose.

    Args:
        what: the field, with its value, whose data have no splits to choose.
        train_split: name of the training split; "" = none is chosen.
        test_split: name of the test split; "" = none is chosen.

    Raises:
        ConfigError: a split is chosen.
    """
    for field, split in (("data.train_split", train_split), ("data.test_split", test_split)):
        if split:
            raise ConfigError(
                f"{field}={shown(split)} is not read: {what} has no splits to choose; legal: ''"
            )
