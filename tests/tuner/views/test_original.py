"""What we write, read by msModelSlim itself."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.views.stories import DATA, deliver, practices, story, view
from trainables.quantization import parse_practice
from tuner.views.msmodelslim import quantization_md5

INTERPRETER = Path(__file__).parents[3] / ".tools/msmodelslim/bin/python"
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not INTERPRETER.exists(), reason="needs msModelSlim: make tools"),
]


def original(*arguments: str | Path) -> Any:
    program = Path(__file__).with_name("original.py")
    command = [str(INTERPRETER), str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_its_cache_answers_from_our_accuracies(tmp_path: Path) -> None:
    view(tmp_path).update(story(tmp_path))
    asked = tmp_path / "practices.json"
    asked.write_text(json.dumps(practices("binary_fallback")))
    plan = DATA / "binary_fallback.yaml"
    answers = original("cached", tmp_path / "save/history", plan, asked)
    assert [answer["accuracies"][0]["accuracy"] for answer in answers] == ["70.0", "82.5", "81.05"]
    assert [answer["is_satisfied"] for answer in answers] == [False, True, True]


def test_quant_type_finds_the_practice_we_save(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shown = view(tmp_path, practice_repo=str(repository), model_type="Qwen3-0.6B")
    shown.update(deliver(story(tmp_path), 2))
    assert original("best", repository, "qwen3", "Qwen3-0.6B", "w8a8") == ["bf_2", ""]
    other = original("best", repository, "qwen3", "Qwen3-1.7B", "w8a8")
    assert other[0] != "bf_2"


def test_any_practice_has_its_key(tmp_path: Path) -> None:
    """Processors in any combination, with and without what has a default."""
    asked = [parse_practice(_any_practice(random.Random(seed))).document() for seed in range(60)]
    file = tmp_path / "practices.json"
    file.write_text(json.dumps(asked))
    assert original("md5", file) == [quantization_md5(practice) for practice in asked]


def _any_practice(chance: random.Random) -> dict[str, Any]:
    process = [
        {
            "type": "linear_quant",
            "qconfig": {
                "weight": _tensor("int8", "per_channel"),
                **({"act": _tensor("int8", "per_token")} if chance.random() < 0.7 else {}),
            },
            **({"exclude": ["*.0.*"]} if chance.random() < 0.5 else {}),
        }
    ]
    if chance.random() < 0.3:
        process = [{"type": "group", "configs": process}]
    for name, options in _PROCESSORS.items():
        if chance.random() < 0.4:
            given = {key: value for key, value in options.items() if chance.random() < 0.5}
            process.insert(0, {"type": name, **_NEEDED.get(name, {}), **given})
    savers: list[dict[str, Any]] = [{"type": "ascendv1_saver"}, {"type": "compressed_tensors"}]
    spec = {
        "process": process,
        "save": chance.sample(savers, k=chance.randint(0, 2)),
        **({"runner": "layer_wise"} if chance.random() < 0.5 else {}),
        **({"dataset": "calib.jsonl"} if chance.random() < 0.5 else {}),
        **({"prior": [{"process": [{"type": "quarot"}]}]} if chance.random() < 0.3 else {}),
    }
    return {"apiversion": "modelslim_v1", "spec": spec}


def _tensor(dtype: str, scope: str) -> dict[str, Any]:
    return {"dtype": dtype, "scope": scope, "symmetric": True, "method": "minmax"}


_SELECTION: dict[str, Any] = {"include": ["*q_proj"], "exclude": ["*k_proj"]}
_NEEDED: dict[str, dict[str, Any]] = {
    "flex_awq_ssz": {
        "qconfig": {
            "act": _tensor("int8", "per_token"),
            "weight": _tensor("int4", "per_channel") | {"ext": {"step": 10}},
        }
    },
    "dynamic_cache": {"qconfig": _tensor("int8", "per_channel")},
}
_PROCESSORS: dict[str, dict[str, Any]] = {
    "iter_smooth": {"alpha": 0.5, "scale_min": 0.001, "symmetric": False, **_SELECTION},
    "flex_smooth_quant": {"alpha": 0.5, "beta": 0.5, "enable_subgraph_type": ["ov"], **_SELECTION},
    "flex_awq_ssz": {"alpha": 0.5, "enable_subgraph_type": ["up-down"]},
    "smooth_quant": {"alpha": 0.25, "symmetric": False},
    "quarot": {"online": True, "block_size": 32, "max_tp_size": 2},
    "online_quarot": {"block_size": 64, **_SELECTION},
    "dynamic_cache": dict(_SELECTION),
    "fa3_quant": {"include": ["*attn"], "qconfig": _tensor("int8", "per_head")},
    "float_sparse": {"sparse_ratio": 1, **_SELECTION},
    "svd_res": {"rank": 16},
}
