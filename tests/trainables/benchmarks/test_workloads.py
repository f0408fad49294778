"""Workloads ask what they were told to, the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from trainables.benchmarks import make_benchmark
from trainables.benchmarks._workload import Ask, make_workload, workload_types
from trainables.benchmarks._workload_vocabulary import (
    EstimatedVocabulary,
    Vocabulary,
    WorkloadError,
    vocabulary_of,
)

ESTIMATED = EstimatedVocabulary(range(100))
TEXT = [
    "the people of the world know how to make a good place of it and how to look after their own",
    "which of these would you like to see again when you come back to work after the first time",
]


def byte_level(*, merged: bool, begins_with: str = "") -> Tokenizer:
    """A byte-level tokenizer: with merges, common words are one token; without, bytes are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000 if merged else 258,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    words = [f"w{chr(97 + a)}{chr(97 + b)}" for a in range(12) for b in range(12)]
    tokenizer.train_from_iterator([*TEXT, " ".join([*words, *words]), *words], trainer, length=None)
    if begins_with:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begins_with} $A", special_tokens=[(begins_with, 0)]
        )
    return tokenizer


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """A folder with a tokenizer."""

    def make(**how: Any) -> Path:
        byte_level(**how).save(str(tmp_path / "tokenizer.json"))
        return tmp_path

    return make


def asks(block: dict[str, Any], count: int, seed: int = 0, by: Vocabulary = ESTIMATED) -> list[Ask]:
    return list(make_workload(block).asks(count, seed, by))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A block of every sort that reads a file, and the file."""
    lines = tmp_path / "prompts.jsonl"
    lines.write_text("".join(json.dumps({"prompt": f"{text}?"}) + "\n" for text in TEXT * 3))
    shared = tmp_path / "sharegpt.json"
    turns = [
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": f"{text}."}]}
        for text in [*TEXT, "too", "long " * 5000]
    ]
    shared.write_text(json.dumps([*turns, {"conversations": []}, {"conversations": turns[:1]}]))
    table = tmp_path / "trace.csv"
    rows = "".join(f"{at},{at * 10 + 5},{at + 1}\n" for at in range(20))
    table.write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}")
    hashed = tmp_path / "trace.jsonl"
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    traced = [(0, 20, 3, [1, 2]), (500, 25, 4, [1, 2, 3]), (2000, 13, 5, [1, 4])]
    hashed.write_text(
        "".join(json.dumps(dict(zip(keys, one, strict=True))) + "\n" for one in traced)
    )
    return {
        "text": {"type": "text", "path": str(lines)},
        "sharegpt": {"type": "sharegpt", "path": str(shared)},
        "table": {"type": "trace", "path": str(table)},
        "hashed": {"type": "trace", "path": str(hashed), "block_tokens": 10},
        "random": {"type": "random", "input_tokens": 9, "prefix_tokens": 3, "prefixes": 2},
    }


@pytest.mark.parametrize("name", ["text", "sharegpt", "table", "hashed", "random"])
def test_equal_seeds_ask_the_same_and_short_runs_its_beginning(
    name: str, files: dict[str, dict[str, Any]]
) -> None:
    block = files[name]
    assert block["type"] in workload_types()
    whole = asks(block, 12, seed=3)
    assert whole == asks(block, 12, seed=3)
    assert asks(block, 2, seed=3) == whole[:2]
    assert any(asks(block, 12, seed=other) != whole for other in range(4, 9))
    assert make_workload(block).problems() == []


def test_a_prompt_has_as_many_tokens_as_asked(checkpoint: Callable[..., Path]) -> None:
    block = {"type": "random", "input_tokens": {"type": "uniform", "low": 3, "high": 60}}
    for how in (
        {"merged": True},
        {"merged": True, "begins_with": "<s>"},
        {"merged": False},
        {"merged": False, "begins_with": "<s>"},
    ):
        folder = checkpoint(**how)
        vocabulary = vocabulary_of(folder)
        assert vocabulary.exact
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for ask in asks(block, 50, by=vocabulary):
            assert isinstance(ask.prompt, str)
            assert (
                len(tokenizer.encode(ask.prompt).ids)
                == ask.input_tokens
                == vocabulary.count(ask.prompt)
            )


def test_shared_beginnings_are_shared_by_tokens(checkpoint: Callable[..., Path]) -> None:
    block = {"type": "random", "input_tokens": 40, "prefix_tokens": 30, "prefixes": 2}
    vocabulary = vocabulary_of(checkpoint(merged=True))
    prompts = [str(ask.prompt).split() for ask in asks(block, 20, by=vocabulary)]
    assert {len(words) for words in prompts} == {40}
    assert len({tuple(words[:30]) for words in prompts}) == 2
    assert len({tuple(words[30:]) for words in prompts}) == 20


def test_ids_are_of_ordinary_tokens(tmp_path: Path, checkpoint: Callable[..., Path]) -> None:
    block = {"type": "random", "input_tokens": 500, "form": "token_ids"}
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 20, "eos_token_id": [3, 4]}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"pad_token_id": 7}))
    (ask,) = asks(block, 1, by=vocabulary_of(tmp_path))
    assert set(ask.prompt) == set(range(20)) - {3, 4, 7}
    assert len(ask.prompt) == 500
    (ask,) = asks(block, 1, by=vocabulary_of(checkpoint(merged=True)))
    assert set(ask.prompt) == set(range(2, 20)) - {3, 4, 7}
    with pytest.raises(WorkloadError, match="vocab_size"):
        asks(block, 1, by=vocabulary_of(tmp_path / "nothing"))


def test_without_a_tokenizer_words_are_tokens(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(tmp_path)
    assert not vocabulary.exact
    assert len(vocabulary.text(7, random.Random(0)).split()) == 7


@pytest.mark.parametrize(
    ("length", "low", "high", "mean"),
    [
        (7, 7, 7, 7),
        ({"type": "uniform", "low": 5, "high": 9}, 5, 9, 7),
        ({"type": "normal", "mean": 50, "std": 10, "low": 30, "high": 70}, 30, 70, 50),
        ({"type": "lognormal", "median": 40, "sigma": 1, "high": 200}, 1, 200, 58.8),
    ],
)
def test_lengths_are_distributed_as_told(length: Any, low: int, high: int, mean: float) -> None:
    block = {"type": "random", "input_tokens": 1, "output_tokens": length}
    found = [ask.output_tokens for ask in asks(block, 2000)]
    assert min(found) >= low
    assert max(found) <= high
    assert sum(found) / len(found) == pytest.approx(mean, rel=0.06)


def test_texts_again_from_the_first(files: dict[str, dict[str, Any]]) -> None:
    found = asks({**files["text"], "shuffle": False, "output_tokens": 5}, 9)
    assert [ask.prompt for ask in found[:2]] == [f"{text}?" for text in TEXT]
    assert found[6:] == found[:3]
    assert {ask.output_tokens for ask in found} == {5}


def test_conversations_without_the_short_and_the_long(files: dict[str, dict[str, Any]]) -> None:
    found = asks(files["sharegpt"], 5)
    assert {ask.prompt for ask in found} == set(TEXT)
    assert all(ask.output_tokens >= ask.input_tokens > 4 for ask in found)
    fixed = asks({**files["sharegpt"], "output_tokens": 9}, 5)
    assert {(ask.prompt, ask.output_tokens) for ask in fixed} == {(text, 9) for text in TEXT}
    with pytest.raises(WorkloadError, match="wanted lengths"):
        asks({**files["sharegpt"], "max_input_tokens": 1, "output_tokens": 9}, 5)


def test_lines_may_say_their_tokens(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "one two three four", "output_tokens": 77}\n\n')
    for kind in ("text", "sharegpt"):
        assert [ask.output_tokens for ask in asks({"type": kind, "path": str(file)}, 1)] == [77]


def test_a_trace_keeps_lengths_and_arrivals(files: dict[str, dict[str, Any]]) -> None:
    found = asks({**files["table"], "start": 5, "max_output_tokens": 8}, 100)
    assert [ask.arrival for ask in found] == list(range(15))
    assert [ask.input_tokens for ask in found[:3]] == [55, 65, 75]
    assert [len(str(ask.prompt).split()) for ask in found[:3]] == [55, 65, 75]
    assert [ask.output_tokens for ask in found[:4]] == [6, 7, 8, 8]
    half = asks({**files["table"], "input_scale": 0.2, "output_scale": 3}, 2)
    assert [(ask.input_tokens, ask.output_tokens) for ask in half] == [(1, 3), (3, 6)]


def test_equal_blocks_of_a_trace_are_equal_text(files: dict[str, dict[str, Any]]) -> None:
    for form in ("text", "token_ids"):
        found = asks({**files["hashed"], "form": form}, 3)
        prompts = [
            ask.prompt.split() if isinstance(ask.prompt, str) else ask.prompt for ask in found
        ]
        assert [ask.arrival for ask in found] == [0, 0.5, 2.0]
        assert [len(prompt) for prompt in prompts] == [20, 25, 13]
        assert prompts[0] == prompts[1][:20]
        assert prompts[2][:10] == prompts[0][:10]
        assert prompts[2][10:] != prompts[0][10:13]


def test_traces_of_other_sources(tmp_path: Path) -> None:
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    found = asks({"type": "trace", "path": str(azure)}, 5)
    assert [(ask.input_tokens, ask.output_tokens) for ask in found] == [(374, 44), (396, 109)]
    assert found[1].arrival == pytest.approx(4.314579, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "name", "content", "said"),
    [
        ("text", "a.jsonl", '{"prompt": "x"}\n{"p": 1}', "line 2: no text under prompt"),
        ("text", "a.jsonl", "[]", "line 1: not an object"),
        ("text", "a.jsonl", "", "no prompt in the file"),
        ("text", "a.jsonl", '{"prompt": "x", "max_tokens": 0}', "0 is no number of tokens"),
        ("sharegpt", "a.json", "{", "not JSON"),
        ("sharegpt", "a.json", "{}", "no list of conversations"),
        ("trace", "a.csv", "a,b\n1,2\n", "has the columns a, b, but not arrived_at"),
        (
            "trace",
            "a.csv",
            "arrived_at,num_prefill_tokens,num_decode_tokens\n0,x,1\n",
            "line 2: ValueError",
        ),
        ("trace", "a.jsonl", '{"timestamp": 1}\n', "line 1: KeyError: 'input_length'"),
        ("trace", "a.jsonl", "", "has 0 requests"),
    ],
)
def test_files_that_are_not_what_they_should_be(
    kind: str, name: str, content: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(content)
    workload = {"type": kind, "path": str(file)}
    ((path, message),) = make_benchmark({"type": "builtin", "workload": workload}).problems()
    assert path == "workload.path"
    assert said in message


def test_a_file_that_is_not_there() -> None:
    block = {"type": "builtin", "workload": {"type": "text", "path": "/no/such/file"}}
    ((path, message),) = make_benchmark(block).problems()
    assert (path, message) == (
        "workload.path",
        "/no/such/file cannot be read: No such file or directory",
    )


def test_identity_is_of_the_content_not_of_the_place(files: dict[str, dict[str, Any]]) -> None:
    here = Path(files["text"]["path"])
    there = here.with_name("copy.jsonl")
    there.write_bytes(here.read_bytes())
    before = make_workload(files["text"]).identity()
    assert make_workload({"type": "text", "path": str(there)}).identity() == before
    here.write_text('{"prompt": "other"}\n')
    assert make_workload(files["text"]).identity() != before


def test_faults_of_a_block_keep_their_paths() -> None:
    for workload, where in (
        ({"type": "random", "input_tokens": 0}, ("workload", "input_tokens")),
        ({"type": "random", "inputs": 3}, ("workload", "inputs")),
        ({"type": "nonsense"}, ("workload",)),
        ({"type": "text"}, ("workload", "path")),
    ):
        with pytest.raises(ValidationError) as caught:
            make_benchmark({"type": "builtin", "workload": workload})
        assert caught.value.errors()[0]["loc"][: len(where)] == where
