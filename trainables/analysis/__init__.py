"""Layer sensitivity: which layers' quantization hurts a model most. No torch here.

The stage program is ``python -m trainables.analysis.analyze``.
"""

from trainables.analysis._groups import block_groups, fused_groups, groups_of
from trainables.analysis._options import METRICS, AnalysisOptions, AnalysisRequest
from trainables.analysis._picture import write_picture
from trainables.analysis._table import table, write_table

__all__ = [
    "METRICS",
    "AnalysisOptions",
    "AnalysisRequest",
    "block_groups",
    "fused_groups",
    "groups_of",
    "table",
    "write_picture",
    "write_table",
]
