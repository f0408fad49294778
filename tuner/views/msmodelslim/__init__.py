"""The view ``msmodelslim``: a run as ``msmodelslim tune`` would have left it, and its way back."""

from tuner.views.msmodelslim._accuracy import ImportedAccuracy, NotAnAccuracyFile, merge_imported
from tuner.views.msmodelslim._documents import evaluation_md5, quantization_md5
from tuner.views.msmodelslim._repository import Saved, save_practice
from tuner.views.msmodelslim._view import MsModelSlimOptions, MsModelSlimView

__all__ = [
    "ImportedAccuracy",
    "MsModelSlimOptions",
    "MsModelSlimView",
    "NotAnAccuracyFile",
    "Saved",
    "evaluation_md5",
    "merge_imported",
    "quantization_md5",
    "save_practice",
]
