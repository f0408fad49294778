"""Tables that are missing, wrong, or do not cover the model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.trainables.latency.operator_tables import (
    LLAMA,
    QWEN_MOE,
    model,
    write_skew,
)
from trainables.latency import make_latency_model
from trainables.latency._model import LatencyError, Served


def test_a_table_that_does_not_cover_the_model_is_refused(folder: Path) -> None:
    with pytest.raises(LatencyError, match=r"16 experts, but .* has no moe\.csv"):
        model(folder, QWEN_MOE)
    meta = {
        "model": "other/Model",
        "tp_degrees": [1, 2],
        "engine_effective": {"hf_overrides": {"num_attention_heads": 16}},
    }
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")
    with pytest.raises(LatencyError, match="other/Model"):
        model(folder)
    with pytest.raises(LatencyError, match="no num_hidden_layers"):
        model(folder, {"hidden_size": 8})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,2\nqkv_proj,x,3\n", "dense.csv:3"),
        ("dense.csv", "layer,tokens\nqkv_proj,1\n", "no column 'time_us'"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,-4\n", "dense.csv:2"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,nan\n", "dense.csv:2"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1\n", "dense.csv:2"),
        ("per_sequence.csv", "layer,sequences,time_us\n", "no rows"),
        ("skew_fit.csv", "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples\n"
         "0,few,sr<=5%,kvB<=1k,kp=0,0.1,2\n", "'few' is no bucket"),
        ("skew_fit.csv", "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples\n"
         "0,n<=2,kvB<=1k,sr<=5%,kp=0,0.1,2\n", "skew_fit.csv:2"),
        ("attention.csv", "\x00", "attention.csv"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named_with_its_line(
    folder: Path, name: str, text: str, message: str
) -> None:
    (folder / "tp1" / name).write_text(text, encoding="utf-8")
    with pytest.raises(LatencyError, match=message):
        model(folder)


@pytest.mark.parametrize("name", ["dense.csv", "per_sequence.csv", "attention.csv"])
def test_a_missing_table_is_named(folder: Path, name: str) -> None:
    (folder / "tp1" / name).unlink()
    with pytest.raises(LatencyError, match=name):
        model(folder)


def test_a_folder_that_is_none_is_a_problem_before_anything_runs(tmp_path: Path) -> None:
    source = make_latency_model({"type": "operators", "path": str(tmp_path / "none")})
    assert source.problems()[0][0] == "path"
    with pytest.raises(LatencyError, match="no folder"):
        source.model(Served(LLAMA))
    (tmp_path / "empty").mkdir()
    source = make_latency_model({"type": "operators", "path": str(tmp_path / "empty")})
    assert "tp<N>" in source.problems()[0][1]


def test_identity_is_of_the_contents_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    def identity(path: Path) -> object:
        return make_latency_model({"type": "operators", "path": str(path)}).identity()

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert identity(copy) == identity(folder)
    write_skew(copy)
    assert identity(copy) != identity(folder)
