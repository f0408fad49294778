"""``[data_storage] pso_top_k``: the load of the best is refined after the search."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.compat.serviceparam.settings import field, translated, vllm
from trainables.serving._load import OperatingPoint

A = field("A", min=1, max=16, dtype="int", value=4)
TOP = "[data_storage]\npso_top_k = 4\n"
RANGE = {"dtype": "float", "min": 1, "max": 40, "value": 7}


def with_range(extra: str, *fields: str) -> str:
    """Settings whose CONCURRENCY may vary, unless ``fields`` say another load."""
    load = fields or (field("CONCURRENCY", min=1, max=64, dtype="int", value=8),)
    text = vllm(A, *load, extra=extra)
    return text[: text.rindex("[[vllm.target_field]]")]


def test_the_load_of_the_best_is_refined(tmp_path: Path) -> None:
    extra = f"max_fine_tune = 6\nslo_coefficient = 0.2\nstep_size = 0.5\n{TOP}"
    found = translated(with_range(extra), tmp_path)
    trial, said = found.data["trial"], "\n".join(found.notes)
    assert trial["finalists"] == 4
    assert trial["refine"] == {
        "by": "concurrency",
        "low": 1,
        "high": 64,
        "precision": 0.2,
        "probes": 6,
    }
    OperatingPoint.model_validate(trial["refine"])
    assert "data_storage.pso_top_k = 4: the highest concurrency within the limits" in said
    assert "step_size: the refinement of the load interpolates" in said
    assert not any(note.startswith(("max_fine_tune", "slo_coefficient")) for note in found.notes)


def test_where_only_the_rate_varies_that_is_refined(tmp_path: Path) -> None:
    fixed = field("CONCURRENCY", min=50, max=50, dtype="int", value=50)
    text = with_range(TOP, fixed, field("REQUESTRATE", **RANGE))
    refine = translated(text, tmp_path).data["trial"]["refine"]
    assert refine == {
        "by": "request_rate",
        "low": 1.0,
        "high": 40.0,
        "concurrency": 50,
        "precision": 0.1,
        "probes": 10,
    }
    OperatingPoint.model_validate(refine)


@pytest.mark.parametrize(
    ("extra", "fields", "said"),
    [
        (TOP, [field("CONCURRENCY", min=9, max=9, dtype="int", value=9)], "has a range"),
        (f"ttft_penalty = 0\ntpot_penalty = 0\n{TOP}", [], "no latency has a penalty"),
        (f"max_fine_tune = 0\n{TOP}", [], "max_fine_tune is 0"),
    ],
)
def test_where_no_load_can_be_refined_the_best_are_measured_again(
    extra: str, fields: list[str], said: str, tmp_path: Path
) -> None:
    found = translated(with_range(extra, *fields), tmp_path)
    assert found.data["trial"]["finalists"] == 4
    assert "refine" not in found.data["trial"]
    assert said in next(note for note in found.notes if note.startswith("data_storage.pso_top_k"))


def test_nothing_is_refined_without_the_best_or_where_every_load_is_searched(
    tmp_path: Path,
) -> None:
    off = translated(with_range("[data_storage]\npso_top_k = 0\n"), tmp_path)
    native = translated(with_range(TOP), tmp_path, native=True)
    for found in (off, native):
        assert not {"finalists", "refine"} & set(found.data["trial"])
    assert "--native searches the load of every trial" in "\n".join(native.notes)
