"""Methods over the training ratio: Joint-SSL, SAM, SAM-A, label smoothing, and OPeN.

Source: Shwartz-Ziv et al. 2023, appendix A.5 to A.7; nobody has published OPeN by this protocol.

READING: SAM and SAM-A have the ascent step of 0.05 of the authors' code, in which both passes move
the running statistics. The class-conditional smoothing is that of the text, more for the smaller
class (rule `inverse`). OPeN starts after four fifths of the epochs, as in its paper.
"""

from functools import partial
from typing import Any

from ..plan import Plan, Table
from .curves import curve_config, curve_table

ERM = "ERM"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    ERM: ("erm", {}),
    "label smoothing": ("label_smoothing", {}),
    "label smoothing by class": ("label_smoothing", {"method__label_smoothing__rule": "inverse"}),
    "SAM": ("sam", {"method__sam__statistics": "both", "method__sam__rho": 0.05}),
    "SAM-A": ("sam_a", {"method__sam_a__statistics": "both", "method__sam_a__rho": 0.05}),
    "Joint-SSL": ("joint_ssl", {}),
    "OPeN": ("open", {}),
}


def ratio_methods(plan: Plan) -> Table:
    """ERM, smoothing, SAM, SAM-A, Joint-SSL and OPeN over the training ratio of two classes."""
    lines = {
        name: partial(curve_config, plan, method=method, **fields)
        for name, (method, fields) in METHODS.items()
    }
    return curve_table(plan, "methods", lines, baseline=ERM)
