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
from trainables.engines._health_check import ErrorPatterns, ForeseenFailure, HealthCheck
from trainables.engines._options import EngineOptions
from trainables.engines._service import Service, start_service
from trainables.engines._substitution import split_arguments
from trainables.engines._versions import package_versions

__all__ = [
    "Deployment",
    "Engine",
    "EngineOptions",
    "ErrorPatterns",
    "ForeseenFailure",
    "HealthCheck",
    "Launch",
    "Service",
    "Symptom",
    "engine_type",
    "engine_types",
    "make_engine",
    "package_versions",
    "register_engine",
    "split_arguments",
    "start_service",
]
