"""A tiny random Llama as a checkpoint folder; a stub engine and a stub of AISBench; trials."""

import json
import sys
import uuid
from pathlib import Path

import pytest

from cluster import find_processes, sweep
from trainables.engines.testing import trial_in

STUBS = Path(__file__).parents[2] / "stubs"
DATASET = """
from ais_bench.benchmark.datasets import CustomDataset
from ais_bench.benchmark.openicl.icl_evaluator import AccEvaluator
from ais_bench.benchmark.openicl.icl_inferencer import GenInferencer
from ais_bench.benchmark.openicl.icl_prompt_template import PromptTemplate
from ais_bench.benchmark.openicl.icl_retriever import ZeroRetriever

{name}_datasets = [
    dict(
        abbr=part,
        type=CustomDataset,
        path={folder!r} + "/" + part + ".jsonl",
        reader_cfg=dict(input_columns=["question"], output_column="answer"),
        infer_cfg=dict(
            prompt_template=dict(type=PromptTemplate, template="{{question}}"),
            retriever=dict(type=ZeroRetriever),
            inferencer=dict(type=GenInferencer),
        ),
        eval_cfg=dict(evaluator=dict(type=AccEvaluator), pred_role="BOT"),
    )
    for part in {parts!r}
]
"""
"""A dataset's configuration that the real AISBench takes as well."""


def _byte_tokenizer(*, merges=(), bos=False):
    """One token per byte, joined by ``merges``; ``bos`` puts ``<s>`` before every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary += [left + right for left, right in merges]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: n for n, token in enumerate(vocabulary)}, merges=list(merges))
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def _tiny_llama(seed=0, context=128):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def byte_tokenizer():
    return _byte_tokenizer


@pytest.fixture(scope="session")
def tiny_llama():
    return _tiny_llama


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    _tiny_llama().save_pretrained(folder)
    _byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def run_id():
    """No process of the run may be left at the end of a test."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    left = find_processes(name)
    sweep(name, grace_s=0)
    assert not left


@pytest.fixture
def trial(tmp_path, run_id):
    return trial_in(tmp_path / "trial", run_id)


@pytest.fixture
def model(tmp_path):
    """Make a model's folder that decides how well the stub engine answers."""

    def make(name="model", **behaviour):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "stub.json").write_text(json.dumps(behaviour))
        return folder

    return make


@pytest.fixture
def sums(tmp_path):
    """A folder of configurations: ``add_gen`` and ``more_gen`` of one file, ``two_gen`` of two."""
    folder = tmp_path / "configs"
    (folder / "datasets").mkdir(parents=True)
    for name, parts, counts in (
        ("add", ["add"], [20]),
        ("more", ["more"], [10]),
        ("two", ["first", "second"], [5, 15]),
        ("lost", ["lost"], [0]),
    ):
        text = DATASET.format(name=name, folder=str(folder), parts=parts)
        (folder / "datasets" / f"{name}_gen.py").write_text(text)
        for part, count in zip(parts, counts, strict=True):
            items = [(f"What is {n}+{len(part)}?", str(n + len(part))) for n in range(count)]
            lines = [json.dumps({"question": q, "answer": a}) for q, a in items]
            if lines:
                (folder / f"{part}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def aisbench(sums):
    """Make an ``evaluation`` block that runs the stubs; keywords override its keys."""

    def make(*, mishap="", settings=None, engine=None, **keys):
        extra = ["--stub", mishap] if mishap else []
        stub = {
            "type": "vllm",
            "command": [sys.executable],
            "entrypoint": "openai_engine",
            "startup_timeout": 300,
            "env_vars": {"PYTHONPATH": str(STUBS)},
        }
        return {
            "type": "aisbench",
            "engine": {**stub, **(engine or {})},
            "datasets": {
                "add": {"config_name": "add_gen"},
                "more": {"config_name": "more_gen", "extra_args": extra},
            },
            "command": [sys.executable, str(STUBS / "ais_bench.py")],
            "settings": {"config_dir": str(sums), "timeout": 300, **(settings or {})},
            **keys,
        }

    return make
