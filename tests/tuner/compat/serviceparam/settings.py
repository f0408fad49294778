"""Settings as a user fills them in, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.compat.serviceparam import (
    Configuration,
    OptimizerRequest,
    OptimizerTranslation,
    read_settings,
    translate_settings,
)

CONFIGS = Path(__file__).parent / "configs"
_FILLED = {
    'port = "port"': "port = 8000",
    '"model_path"': '"/models/qwen3-8b"',
    '"model_name"': '"qwen3-8b"',
    '"dataset_name"': '"sharegpt"',
    'models = "models"': 'models = "vllm_api_stream_chat"',
    'datasets = "datasets"': 'datasets = "gsm8k_gen"',
}


def shipped(name: str) -> str:
    """Settings as they come, placeholders and all."""
    return (CONFIGS / f"{name}.toml").read_text()


def filled(name: str) -> str:
    """The same, with everything a user has to say."""
    text = shipped(name)
    for placeholder, value in _FILLED.items():
        text = text.replace(placeholder, value)
    return text


def with_mindie(text: str, folder: Path, **model: Any) -> str:
    """Settings that name a config.json of MindIE in ``folder``."""
    file = folder / "mindie.json"
    document = {
        "ServerConfig": {"port": 1025, "httpsEnabled": True},
        "BackendConfig": {
            "npuDeviceIds": [[0, 1]],
            "ModelDeployConfig": {
                "ModelConfig": [
                    {"modelName": "qwen3", "modelWeightPath": "/models/qwen3-8b", "worldSize": 2}
                    | model
                ]
            },
            "ScheduleConfig": {
                "maxBatchSize": 200,
                "maxPrefillBatchSize": 50,
                "prefillTimeMsPerReq": 150,
                "supportSelectBatch": False,
            },
        },
    }
    file.write_text(json.dumps(document))
    return text.replace("[mindie]\n", f'[mindie]\nconfig_path = "{file}"\n')


def configured(
    text: str, folder: Path, environment: Mapping[str, str] | None = None, **options: Any
) -> Configuration:
    """The configuration of ``config.toml`` in ``folder``, and of nothing else."""
    (folder / "config.toml").write_text(text)
    places: dict[str, Any] = {"home": folder / "home", "cwd": folder, "installed": ()}
    return read_settings(None, environment or {}, **places | options)


def translated(
    text: str, folder: Path, engine: str = "vllm", benchmark: str = "vllm_benchmark", **request: Any
) -> OptimizerTranslation:
    """What the settings of ``text`` come to, on a machine with NPUs."""
    environment = request.get("environment", {})
    return translate_settings(
        configured(text, folder, environment),
        OptimizerRequest(engine=engine, benchmark=benchmark, cwd=folder, **request),
    )


def problems(text: str, folder: Path, *tools: str, **request: Any) -> dict[str, str]:
    return dict(translated(text, folder, *tools, **request).problems)


def field(name: str, *, position: str = "env", **entry: Any) -> str:
    """One ``[[vllm.target_field]]`` as TOML."""
    lines = ["[[vllm.target_field]]", f'name = "{name}"', f'config_position = "{position}"']
    lines += [f"{key} = {_toml(value)}" for key, value in entry.items()]
    return "\n".join(lines) + "\n"


def vllm(*fields: str, others: str = "", extra: str = "", command: str = "") -> str:
    """Complete settings for vLLM with these fields; a load of 100 without a rate is added."""
    head = f"{extra}\n[vllm_benchmark.command]\ndataset_name = 'random'\nnum_prompts = 500\n"
    head += f"{command}\n[vllm.command]\nmodel = '/m'\nserved_model_name = 'm'\n"
    head += f"others = '''{others}'''\n"
    load = field("CONCURRENCY", min=100, max=100, dtype="int", value=100)
    return head + "".join(fields) + load


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)
