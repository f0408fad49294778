"""Outputs of a run in the formats of other tools, made from what was measured."""

from tuner.views._contract import Begun, Finished, Pedigree, Status, Story, View
from tuner.views._registry import make_view, register_view, view_type, view_types

__all__ = [
    "Begun",
    "Finished",
    "Pedigree",
    "Status",
    "Story",
    "View",
    "make_view",
    "register_view",
    "view_type",
    "view_types",
]
