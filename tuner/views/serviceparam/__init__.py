"""The view ``serviceparam``: a run as ``msserviceprofiler optimizer`` would have left it."""

from tuner.views.serviceparam._table import (
    EXTRA_COLUMNS,
    METRIC_COLUMNS,
    STATE_COLUMNS,
    plain,
)
from tuner.views.serviceparam._view import ServiceparamOptions, ServiceparamView

__all__ = [
    "EXTRA_COLUMNS",
    "METRIC_COLUMNS",
    "STATE_COLUMNS",
    "ServiceparamOptions",
    "ServiceparamView",
    "plain",
]
