"""Latency models: how long an iteration of a model takes on a device, learned or composed."""

from trainables.latency._model import (
    LatencyError,
    LatencySource,
    Served,
    latency_model_type,
    latency_model_types,
    make_latency_model,
    register_latency_model,
)
from trainables.latency._records import IterationRecord, read_records, write_records
from trainables.latency._xgboost import train_latency

__all__ = [
    "IterationRecord",
    "LatencyError",
    "LatencySource",
    "Served",
    "latency_model_type",
    "latency_model_types",
    "make_latency_model",
    "read_records",
    "register_latency_model",
    "train_latency",
    "write_records",
]
