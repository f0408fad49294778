"""``auto_tune.py`` and ``auto_tune.sh``: their flags, variables, files and results, understood."""

from tuner.compat.autotune._places import check_tune
from tuner.compat.autotune._results import EarlierTrial, TuneResults, read_tune_results
from tuner.compat.autotune._resume import asks_the_same, fresh_name, start_of, unfinished
from tuner.compat.autotune._secrets import read_secrets
from tuner.compat.autotune._settings import SETTINGS, Setting, Settings, read_settings
from tuner.compat.autotune._translate import RUNS, Translator, TuneTranslation, run_name

__all__ = [
    "RUNS",
    "SETTINGS",
    "EarlierTrial",
    "Setting",
    "Settings",
    "Translator",
    "TuneResults",
    "TuneTranslation",
    "asks_the_same",
    "check_tune",
    "fresh_name",
    "read_secrets",
    "read_settings",
    "read_tune_results",
    "run_name",
    "start_of",
    "unfinished",
]
