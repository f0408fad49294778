"""The ``trial.engine`` block of ``--pd disaggregation``: MindIE deployed by its own scripts."""

from __future__ import annotations

from pathlib import Path

from searchers import Json
from tuner.compat.serviceparam._config import Settings
from tuner.compat.serviceparam._engines import Served, watched
from tuner.compat.serviceparam._mindie import Installed
from tuner.compat.serviceparam._parameters import Remarks

ENGINE = "mindie-k8s"
_PLACE = "kubectl.kubectl_default_path"


def installed_scripts(settings: Settings, cwd: Path, remarks: Remarks) -> Installed | None:
    """The scripts and files in the folder that the settings name; None after a problem."""
    named = settings.kubectl.kubectl_default_path.strip()
    if not named:
        said = "is not set; give the folder of deploy.sh and delete.sh, as an absolute path"
        remarks.problem(_PLACE, said)
        return None
    folder = str((cwd / Path(named).expanduser()).absolute())
    hint = "name the folder that deploy.sh is in"
    return Installed({"type": ENGINE, "folder": folder}, folder, _PLACE, hint, remarks)


def kubernetes_engine(settings: Settings, installed: Installed | None, remarks: Remarks) -> Served:
    """One deployment after the other; model, name and devices are what the files there say."""
    if installed is None:
        return Served({"type": ENGINE}, "", 1)
    block: dict[str, Json] = {**installed.block, "replace": True, **watched(settings)}
    said = "what is deployed in its namespace is deleted before each trial, as in the original"
    remarks.note("--pd", f"{said} (--set trial.engine.replace=false: only what was deployed here)")
    found = installed.asked(lambda engine: engine.serves())
    if name := found.get("name"):
        block["served_model_name"] = name
    said = f"{installed.name}/conf/config.json names no model"
    model = installed.served_model(found.get("model"), said)
    devices = found.get("devices", 1)
    return Served(block, model, devices if isinstance(devices, int) else 1)
