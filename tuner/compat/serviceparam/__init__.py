"""``msserviceprofiler optimizer``: its command line, ``config.toml`` and results, understood."""

from tuner.compat.serviceparam._history import (
    DataStorage,
    NotADataStorageError,
    data_storage_files,
    read_data_storage,
    wanted_rows,
)
from tuner.compat.serviceparam._places import check_optimizer
from tuner.compat.serviceparam._reading import Configuration, SettingsError, read_settings
from tuner.compat.serviceparam._request import (
    BENCHMARKS,
    ENGINES,
    LOG_VARIABLE,
    OptimizerRequest,
    has_npu,
    parse_level,
    request_problems,
)
from tuner.compat.serviceparam._simulation import simulated, simulation_asked
from tuner.compat.serviceparam._sources import PATH_VARIABLE
from tuner.compat.serviceparam._translate import OptimizerTranslation, translate_settings

__all__ = [
    "BENCHMARKS",
    "ENGINES",
    "LOG_VARIABLE",
    "PATH_VARIABLE",
    "Configuration",
    "DataStorage",
    "NotADataStorageError",
    "OptimizerRequest",
    "OptimizerTranslation",
    "SettingsError",
    "check_optimizer",
    "data_storage_files",
    "has_npu",
    "parse_level",
    "read_data_storage",
    "read_settings",
    "request_problems",
    "simulated",
    "simulation_asked",
    "translate_settings",
    "wanted_rows",
]
