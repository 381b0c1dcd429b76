"""Which splits of a data set train and test, for the sources that let a config choose."""

from purenoise_jax.runtime.errors import ConfigError


def refuse_odd_splits(train: str, test: str) -> None:
    """Refuses names that are no plain names, and the same name twice.

    Args:
        train: name of the split that trains.
        test: name of the split that is tested on.

    Raises:
        ConfigError: one line that names the fields.
    """
    for field, name in (("data.train_split", train), ("data.test_split", test)):
        if name in (".", "..") or "/" in name or "\\" in name:
            raise ConfigError(
                f"{field}={name!r} is not legal; legal: the plain name of a split or folder"
            )
    if train == test:
        raise ConfigError(
            f"data.train_split and data.test_split are both {train!r}, so that the test would be "
            "on training images; set one of them to another split"
        )
