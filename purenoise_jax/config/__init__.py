"""Config fields: their defaults, constraints and cross-checks.

Config files import `default_config` and `make_phase` from here, and their arguments from `parts`.
"""

from purenoise_jax.config.fields import default_config
from purenoise_jax.config.phase_fields import make_phase

__all__ = ["default_config", "make_phase"]
