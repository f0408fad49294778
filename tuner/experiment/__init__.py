"""The experiment file: reading, checking, saving."""

from tuner.experiment._channels import (
    KINDS,
    AppriseOptions,
    ChannelOptions,
    FeishuOptions,
    Heartbeat,
    Kind,
    WebhookOptions,
)
from tuner.experiment._demand import Size, SizeUnknown
from tuner.experiment._document import Document, read_document, to_yaml
from tuner.experiment._duration import Duration, format_duration, parse_duration
from tuner.experiment._experiment import Experiment, Search, check_experiment, load_experiment
from tuner.experiment._models import FITNESS, Budget, Cluster, Expectation, Limit, Objective
from tuner.experiment._prior import SPLITS
from tuner.experiment._problems import ExperimentError, Problem, from_pydantic
from tuner.experiment._schema import experiment_schema

__all__ = [
    "FITNESS",
    "KINDS",
    "SPLITS",
    "AppriseOptions",
    "Budget",
    "ChannelOptions",
    "Cluster",
    "Document",
    "Duration",
    "Expectation",
    "Experiment",
    "ExperimentError",
    "FeishuOptions",
    "Heartbeat",
    "Kind",
    "Limit",
    "Objective",
    "Problem",
    "Search",
    "Size",
    "SizeUnknown",
    "WebhookOptions",
    "check_experiment",
    "experiment_schema",
    "format_duration",
    "from_pydantic",
    "load_experiment",
    "parse_duration",
    "read_document",
    "to_yaml",
]
