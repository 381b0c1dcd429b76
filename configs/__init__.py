"""Config files, one per data set.

What they share comes with the package, so that they run anywhere. Copies of them that say
`from configs import common` find it here.
"""

from purenoise_jax.config import parts as common

__all__ = ["common"]
