"""The world of a real ``tune`` on a CPU: a model that adds, its questions, its plans, its tools."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from tests.addition_model import questions

TOOLS = Path(os.environ.get("TUNER_TOOLS", Path(__file__).parents[2] / ".tools"))
NAME = "adder"
BLOCKS = 4
SPOILED = (0, 1)
"""Blocks with outliers: with both in float the model adds as before, with one it makes mistakes."""

_DATASET = """\
from ais_bench.benchmark.datasets import CustomDataset
from ais_bench.benchmark.openicl.icl_evaluator import AccEvaluator
from ais_bench.benchmark.openicl.icl_inferencer import GenInferencer
from ais_bench.benchmark.openicl.icl_prompt_template import PromptTemplate
from ais_bench.benchmark.openicl.icl_retriever import ZeroRetriever

addition_datasets = [
    dict(
        abbr="addition",
        type=CustomDataset,
        path={path!r},
        reader_cfg=dict(input_columns=["question"], output_column="answer"),
        infer_cfg=dict(
            prompt_template=dict(
                type=PromptTemplate,
                template=dict(round=[dict(role="HUMAN", prompt="{{question}}")]),
            ),
            retriever=dict(type=ZeroRetriever),
            inferencer=dict(type=GenInferencer),
        ),
        eval_cfg=dict(evaluator=dict(type=AccEvaluator), pred_role="BOT"),
    )
]
"""
_LINEAR_QUANT = {
    "type": "linear_quant",
    "qconfig": {
        "act": {"scope": "per_token", "dtype": "int8", "symmetric": True, "method": "minmax"},
        "weight": {"scope": "per_channel", "dtype": "int8", "symmetric": True, "method": "minmax"},
    },
    "include": ["*"],
    "exclude": [],
}
_LABEL = {"w_bit": 8, "a_bit": 8, "is_sparse": False, "kv_cache": False}


def write_data(folder: Path, count: int) -> tuple[Path, Path]:
    """The calibration file, and the folder of AISBench's configurations for ``count`` questions."""
    folder.mkdir(parents=True, exist_ok=True)
    calibration = folder / "calibration.jsonl"
    template = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>"
    texts = [template.format(*pair) for pair in questions(16, seed=7)]
    _write_lines(calibration, [{"inputs_pretokenized": text} for text in texts])
    asked = folder / "addition.jsonl"
    _write_lines(asked, [{"question": q, "answer": a} for q, a in questions(count)])
    datasets = folder / "aisbench" / "datasets"
    datasets.mkdir(parents=True, exist_ok=True)
    (datasets / "addition_gen.py").write_text(_DATASET.format(path=str(asked)))
    return calibration, folder / "aisbench"


def _write_lines(file: Path, documents: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(document) + "\n" for document in documents))


def binary_fallback(calibration: Path) -> dict[str, Any]:
    """Decoder blocks as candidates, the harmless ones not last."""
    order = [SPOILED[0], SPOILED[1], *(n for n in range(BLOCKS) if n not in SPOILED)]
    return {
        "type": "binary_fallback",
        "rollback_path": "spec.process.0.exclude",
        "rollback_candidates": [f"*model.layers.{block}.*" for block in order],
        "template": {
            "apiversion": "modelslim_v1",
            "metadata": {"config_id": "adder_w8a8", "label": _LABEL},
            "spec": _spec(calibration),
        },
    }


def standing_high(calibration: Path) -> dict[str, Any]:
    """With and without an outlier suppression; the blocks are ranked."""
    return {
        "type": "standing_high",
        "anti_outlier_strategies": [[], [{"type": "iter_smooth", "alpha": 0.5}]],
        "template": _spec(calibration),
        "metadata": {"config_id": "adder_high", "label": _LABEL},
    }


def _spec(calibration: Path) -> dict[str, Any]:
    return {
        "runner": "auto",
        "process": [_LINEAR_QUANT],
        "save": [{"type": "compressed_tensors", "part_file_size": 4}],
        "dataset": str(calibration),
    }


def write_plan(file: Path, strategy: dict[str, Any], *, target: float = 98.0) -> Path:
    """A plan of ``msmodelslim tune`` for vLLM on a CPU."""
    evaluation = {
        "type": "service_oriented",
        "demand": {"expectations": [{"dataset": "addition", "target": target, "tolerance": 1}]},
        "evaluation": {
            "type": "aisbench",
            "served_model_name": NAME,
            "precheck": [
                {"type": "expected_answer", "test_cases": [{"2+2=": "4"}], "max_tokens": 8}
            ],
            "datasets": {"addition": {"config_name": "addition_gen"}},
            "aisbench": {
                "batch_size": 8,
                "request_rate": 100.0,
                "max_out_len": 6,
                "generation_kwargs": {"temperature": 0},
            },
        },
        "inference_engine": {
            "type": "vllm",
            "served_model_name": NAME,
            "startup_timeout": 300,
            "env_vars": {
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": "1",
            },
            "args": {
                "dtype": "bfloat16",
                "max-model-len": 512,
                "max-num-seqs": 8,
                "enforce-eager": True,
                "distributed-executor-backend": "uni",
                "kv-cache-memory-bytes": "16M",
            },
        },
    }
    file.write_text(yaml.safe_dump({"strategy": strategy, "evaluation": evaluation}))
    return file


def tools() -> list[str]:
    """The flags of ``tune`` that name the real tools."""
    return [
        *("--msmodelslim", str(TOOLS / "msmodelslim/bin/msmodelslim")),
        *("--vllm", str(TOOLS / "vllm/bin/python")),
        *("--ais_bench", str(TOOLS / "aisbench/bin/ais_bench")),
    ]
