"""The simulation mode of the original: its variables, and the experiment they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from searchers import Json
from tuner.compat.serviceparam._reading import Configuration
from tuner.compat.serviceparam._request import OptimizerRequest
from tuner.compat.serviceparam._translate import OptimizerTranslation

SWITCHES = ("MODEL_EVAL_STATE_SIMULATE", "MODEL_EVAL_STATE_ALL")
"""The first is what the original tests, the second what its documentation names."""
_SLEEP = "MODEL_EVAL_STATE_IS_SLEEP_FLAG"
_FOLDER = "latency_model"
_BOOSTER_DEPTH = 3
"""Folders of the original's ``bak/base/xgb_model.ubj`` below that of the model."""


def simulation_asked(environment: Mapping[str, str]) -> bool:
    """Whether one of the switches is on: set, and not ``false``."""
    values = (environment.get(name) or environment.get(name.lower()) for name in SWITCHES)
    return any(value and value.lower() != "false" for value in values)


def simulated(
    translation: OptimizerTranslation, configuration: Configuration, request: OptimizerRequest
) -> OptimizerTranslation:
    """The same experiment on a simulated engine, whose iterations take as long as the model that
    ``train`` made says."""
    data: dict[str, Any] = {**translation.data, "trial": {**translation.data["trial"]}}
    path = latency_folder(configuration, request)
    data["trial"]["engine"] = {
        "type": "simulated",
        "of": data["trial"]["engine"],
        "latency": {"type": "xgboost", "path": str(path)},
    }
    data["cluster"] = {**data.get("cluster", {}), "resources": {"CPU": 1}}
    notes = [f"simulation: nothing is measured; iterations take as long as {path} says"]
    if request.environment.get(_SLEEP, "").lower() == "true":
        notes.append(f"{_SLEEP}: nothing sleeps, time is virtual")
    return replace(translation, data=data, notes=(*notes, *translation.notes))


def latency_folder(configuration: Configuration, request: OptimizerRequest) -> Path:
    """Folder of the trained model: that of the settings, or below the output."""
    settings = configuration.settings
    block = settings.latency_model
    if block.base_path is not None:
        return (request.cwd / Path(block.base_path).expanduser()).absolute()
    if block.model_path is not None:
        file = (request.cwd / Path(block.model_path).expanduser()).absolute()
        return file.parents[_BOOSTER_DEPTH - 1] if file.suffix == ".ubj" else file
    output: Json = settings.output
    return (request.cwd / Path(str(output)).expanduser() / _FOLDER).absolute()
