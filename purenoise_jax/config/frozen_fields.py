"""Fields that name the runs whose networks methods use and do not train, such as `frozen.g`."""

from ml_collections import ConfigDict

from purenoise_jax.methods import frozen_networks
from purenoise_jax.runtime.errors import ConfigError


def used_networks(config: ConfigDict) -> dict[str, str]:
    """Returns the networks that the methods of a config use: name -> one of these methods.

    Args:
        config: with the fields of `config/fields.py`.
    """
    methods = {name for phase in config.phases.values() for name in phase.methods}
    users = {network: methods & each.keys() for network, each in frozen_networks().items()}
    return {network: min(names) for network, names in users.items() if names}


def refuse_unnamed_networks(config: ConfigDict) -> None:
    """Refuses a config whose methods use a network that no field names.

    This is no part of `validate`, because a plan of several runs names the networks of valid
    configs.

    Args:
        config: validated.

    Raises:
        ConfigError: one line, with a command that trains such a network.
    """
    for network, method in used_networks(config).items():
        if not config.frozen[network]:
            usual = frozen_networks()[network][method]
            raise ConfigError(
                f"frozen.{network}='' names no run, but {method} uses the network of one; legal: "
                f"the workdir of a run of the same network with method={usual}, such as "
                f"runs/{usual} after `python -m purenoise_jax.main --config FILE:method={usual} "
                f"--workdir runs/{usual}`, with the FILE of this run"
            )
