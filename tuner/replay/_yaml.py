"""Options that may be YAML: inline, or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tuner.experiment import read_document
from tuner.replay._faults import fault


def read_yaml(text: str, option: str) -> Any:
    """What an option says in YAML or JSON, inline or in a file; None when it is neither.

    Raises ``ExperimentError`` when it is meant to be YAML and cannot be read.
    """
    stripped = text.strip()
    if stripped.startswith("{") or "\n" in stripped:
        return parse_yaml(stripped, option)
    if not stripped.lower().endswith((".yaml", ".yml", ".json")):
        return None
    if not Path(stripped).is_file():
        raise fault(option, f"there is no file {stripped}")
    return read_document(Path(stripped)).data


def parse_yaml(text: str, option: str) -> Any:
    """The plain values of inline YAML; numbers as people write them."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise fault(option, f"is not valid YAML: {said}") from error
