"""The ``trial.engine`` block of MindIE, and what its config.json says now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from searchers import Json
from trainables import StageError
from trainables.engines import Engine, make_engine
from tuner.compat.serviceparam._config import MINDIE_CONFIG, Settings
from tuner.compat.serviceparam._engines import Served, watched
from tuner.compat.serviceparam._fields import ENV, file_entry
from tuner.compat.serviceparam._parameters import Entry, Remarks

_INSTALL_VARIABLE = "MIES_INSTALL_PATH"
_MODEL = "BackendConfig.ModelDeployConfig.ModelConfig.0"
_WEIGHTS, _NAME = f"{_MODEL}.modelWeightPath", f"{_MODEL}.modelName"
_WORLD, _DEVICES = f"{_MODEL}.worldSize", "BackendConfig.npuDeviceIds.0"
_HTTPS = "ServerConfig.httpsEnabled"
_PLACE = "mindie.config_path"


class Installed:
    """The configuration that MindIE is installed with; empty after a problem, which is said.

    Attributes:
        block: The engine's block.
        name: What the configuration is called in messages.
        engine: Its adapter; None once it was found that the configuration cannot be read.
    """

    def __init__(
        self, block: Mapping[str, Json], name: str, place: str, hint: str, remarks: Remarks
    ) -> None:
        self.block, self.name = dict(block), name
        self.engine: Engine | None = make_engine(block)
        self._place, self._hint = place, hint
        self._remarks = remarks

    def values(self, paths: Sequence[str]) -> dict[str, Json]:
        """What it says at dotted paths, without those it has not."""
        return self.asked(lambda engine: engine.configured(paths))

    def asked(self, question: Callable[[Engine], dict[str, Json]]) -> dict[str, Json]:
        """What the adapter answers; empty where it cannot read the configuration."""
        try:
            return {} if self.engine is None else question(self.engine)
        except StageError as error:
            self._remarks.problem(self._place, f"{error}; {self._hint}")
            self.engine = None
            return {}

    def tuned(self, given: Sequence[Entry]) -> dict[str, Json]:
        """The values in use today of the fields that are entries of its files, by path."""
        paths = [file_entry(entry.field.config_position) for entry in given]
        found = self.values([path for path in paths if path != ENV and "." in path])
        return {
            path: value for path, value in found.items() if isinstance(value, str | int | float)
        }

    def served_model(self, model: Json, said: str) -> str:
        """``model`` where it is a path; else a problem, unless there is one already."""
        if isinstance(model, str) and model:
            return model
        if self.engine is not None:
            self._remarks.problem(self._place, said)
        return ""


def installed_mindie(
    settings: Settings, environment: Mapping[str, str], remarks: Remarks
) -> Installed:
    """The MindIE of this machine."""
    file = str(_file(settings, environment))
    hint = f"name MindIE's config.json, or set {_INSTALL_VARIABLE}"
    return Installed({"type": "mindie", "config_path": file}, file, _PLACE, hint, remarks)


def mindie_engine(settings: Settings, installed: Installed, remarks: Remarks) -> Served:
    """MindIE with the configuration file that it has; model and devices are read from that."""
    block: dict[str, Json] = installed.block | watched(settings)
    found = installed.values([_WEIGHTS, _NAME, _WORLD, _DEVICES, _HTTPS])
    said = f"{installed.name} names no model: {_WEIGHTS}"
    model = installed.served_model(found.get(_WEIGHTS), said)
    if isinstance(name := found.get(_NAME), str) and name:
        block["served_model_name"] = name
    if found.get(_HTTPS) is True:
        block["config"] = {_HTTPS: False}
        said = f"{_HTTPS} is true and becomes false for what runs here, which only this machine"
        remarks.note(_PLACE, f"{said} reaches; the installed file stays as it is")
    return Served(block, model, _width(found))


def _file(settings: Settings, environment: Mapping[str, str]) -> Path:
    if settings.mindie.config_path is not None:
        return Path(settings.mindie.config_path).expanduser().absolute()
    default, install = Path(MINDIE_CONFIG), environment.get(_INSTALL_VARIABLE)
    if default.is_file() or not install:
        return default
    places = [
        Path(install, "conf/config.json"),
        Path(install).parent / "mindie_llm/conf/config.json",
    ]
    return next((place for place in places if place.is_file()), places[-1])


def _width(found: Mapping[str, Json]) -> int:
    """Devices that one instance occupies."""
    world, devices = found.get(_WORLD), found.get(_DEVICES)
    if isinstance(world, int) and not isinstance(world, bool) and world > 0:
        return world
    return len(devices) if isinstance(devices, list) and devices else 1
