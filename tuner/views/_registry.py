"""View types: what ``views: [{type: ...}]`` of an experiment may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables._registry import Registry
from tuner.views._contract import Pedigree, View

_VIEWS: Registry[View] = Registry(
    "view",
    "npu_tuner.views",
    {
        "auto_tune": "tuner.views.autotune",
        "msmodelslim": "tuner.views.msmodelslim",
        "serviceparam": "tuner.views.serviceparam",
    },
)
register_view = _VIEWS.register
view_types = _VIEWS.names
view_type = _VIEWS.find


def make_view(block: Mapping[str, Any], *, pedigree: Pedigree | None = None) -> View:
    """The view of an item of ``views``.

    Args:
        block: ``type`` and the view's options.
        pedigree: Names the model's family where a view files something under it; called only
            when there is something to file.

    Raises as :meth:`trainables._registry.Registry.make`.
    """
    return _VIEWS.make(block, pedigree=pedigree)
