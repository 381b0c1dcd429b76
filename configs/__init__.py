"""Config files, one per data set.

Their common part comes with the package, so that they run anywhere. Copies of them can
still say `from configs import common`.
"""

from purenoise_jax.config import parts as common

__all__ = ["common"]
