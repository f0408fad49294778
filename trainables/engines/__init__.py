"""Serving engines: started, proven ready by real inference, watched and stopped.

What an adapter has to keep is checked by :mod:`trainables.engines.testing`.
"""

from trainables.engines._engine import (
    Deployment,
    Engine,
    Launch,
    Symptom,
    engine_type,
    engine_types,
    make_engine,
    register_engine,
)
from trainables.engines._options import EngineOptions
from trainables.engines._service import Service, start_service

__all__ = [
    "Deployment",
    "Engine",
    "EngineOptions",
    "Launch",
    "Service",
    "Symptom",
    "engine_type",
    "engine_types",
    "make_engine",
    "register_engine",
    "start_service",
]
