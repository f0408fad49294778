"""The answer is filed where ``msmodelslim quant --quant_type`` finds it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.views.stories import deliver, practices, story, tree, view
from tuner.views.msmodelslim import Saved, save_practice


def file(
    folder: Path, practice: dict[str, Any], name: str = "bf_2", model: str = "Qwen3-8B"
) -> Saved:
    return save_practice(folder, practice, name, model_type=model, tags=["vLLM-Ascend"])


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("verdict", ["satisfied", "budget"])
def test_a_satisfying_answer_is_saved_verified_for_the_model(tmp_path: Path, verdict: str) -> None:
    repository = tmp_path / "repository"
    shown = view(tmp_path, practice_repo=str(repository), model_type="Qwen3-8B")
    told = story(tmp_path)
    shown.update(told)
    assert not repository.exists()
    told = deliver(told, 2, verdict)
    assert f"practice saved: {repository / 'qwen3/bf_2.yaml'}" in shown.update(told)
    metadata = read(repository / "qwen3/bf_2.yaml")["metadata"]
    assert metadata == {
        "config_id": "bf_2",
        "score": 90.0,
        "label": {"w_bit": 8, "a_bit": 8, "is_sparse": False, "kv_cache": False},
        "verified_model_types": ["Qwen3-8B"],
        "verified_tags": {"Qwen3-8B": [["vLLM-Ascend"]]},
    }
    before = tree(repository)
    assert shown.update(told) == ()
    view(tmp_path, practice_repo=str(repository), model_type="Qwen3-8B").update(told)
    assert tree(repository) == before


@pytest.mark.parametrize(("winner", "verdict"), [(0, "budget"), (2, "exhausted"), (2, "failed")])
def test_what_does_not_satisfy_is_not_saved(tmp_path: Path, winner: int, verdict: str) -> None:
    repository = tmp_path / "repository"
    told = deliver(story(tmp_path), winner, verdict)
    view(tmp_path, practice_repo=str(repository)).update(told)
    assert not repository.exists()


def test_without_a_repository_the_answer_is_in_the_save_path(tmp_path: Path) -> None:
    view(tmp_path, model_type="Qwen3-8B").update(deliver(story(tmp_path), 2))
    assert read(tmp_path / "save/bf_2.yaml")["metadata"]["verified_model_types"] == ["Qwen3-8B"]


@pytest.mark.parametrize("family", ["", "..", "a/b"])
def test_a_family_that_is_no_folder_name_is_said_and_hurts_nothing(
    tmp_path: Path, family: str
) -> None:
    shown = view(tmp_path, practice_repo=str(tmp_path / "repo"), pedigree=lambda: family)
    (note,) = shown.update(deliver(story(tmp_path), 2))
    assert "not in the repository" in note
    assert (tmp_path / "save/quant_model").exists()
    assert not (tmp_path / "repo").exists()


def test_a_family_that_cannot_be_found_is_asked_for_again(tmp_path: Path) -> None:
    answers = iter([RuntimeError("no such model type"), "qwen3"])

    def pedigree() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    shown = view(tmp_path, practice_repo=str(tmp_path / "repo"), pedigree=pedigree)
    told = deliver(story(tmp_path), 2)
    assert "no such model type" in shown.update(told)[0]
    shown.update(told)
    assert (tmp_path / "repo/qwen3/bf_2.yaml").exists()


def test_an_id_of_another_practice_gets_a_number_and_nothing_is_replaced(tmp_path: Path) -> None:
    first, second, third = practices("binary_fallback")
    saved = [file(tmp_path, practice) for practice in (first, second, third)]
    assert [one.file.stem for one in saved] == ["bf_2", "bf_2_2", "bf_2_3"]
    for one in saved:
        assert read(one.file)["metadata"]["config_id"] == one.file.stem
    assert [file(tmp_path, practice) for practice in (first, second, third)] == [
        replace(one, new=False) for one in saved
    ]


def test_the_same_practice_is_known_under_any_id_but_not_for_another_model(tmp_path: Path) -> None:
    practice = practices("binary_fallback")[0]
    first = file(tmp_path, practice, "bf_2")
    assert file(tmp_path, practice, "bf_7") == replace(first, new=False)
    assert file(tmp_path, practice, "bf_2", model="Qwen3-32B").file.stem == "bf_2_2"


def test_files_that_are_no_practices_are_passed_over(tmp_path: Path) -> None:
    for number, text in enumerate(["a: [", "", "- 1", "metadata: 1", "metadata: {config_id: 1}"]):
        (tmp_path / f"{number}.yaml").write_text(text)
    (tmp_path / "bf_2.yaml").write_text("theirs")
    assert file(tmp_path, practices("binary_fallback")[0]).file.stem == "bf_2_2"
    assert (tmp_path / "bf_2.yaml").read_text() == "theirs"


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    template = practices("binary_fallback")[0]
    several = [template | {"spec": template["spec"] | {"dataset": f"{n}.jsonl"}} for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(lambda practice: file(tmp_path, practice), several))
    assert len({one.file for one in saved}) == 8
    assert {read(one.file)["spec"]["dataset"] for one in saved} == {f"{n}.jsonl" for n in range(8)}
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())


def linear(weight: str, act: str | None) -> dict[str, Any]:
    qconfig = {"weight": {"dtype": weight, "scope": "s", "symmetric": True, "method": "m"}}
    if act is not None:
        qconfig["act"] = qconfig["weight"] | {"dtype": act}
    return {"type": "linear_quant", "qconfig": qconfig}


@pytest.mark.parametrize(
    ("given", "process", "right", "corrected"),
    [
        ({}, [linear("int8", "int8")], (8, 8, False, False), False),
        ({}, [linear("int8", None)], (8, 16, False, False), False),
        ({}, [linear("int4", "float")], (4, 16, False, False), False),
        ({}, [linear("mxfp4", "mxfp8")], (4, 8, False, False), False),
        ({}, [linear("fp8_e4m3", "fp8_e4m3")], (8, 8, False, False), False),
        ({}, [linear("int8", "int8"), linear("int4", "int8")], (4, 8, False, False), False),
        (
            {"w_bit": 8},
            [linear("int8", "int8"), linear("int4", "int8")],
            (8, 8, False, False),
            False,
        ),
        ({"w_bit": 8, "a_bit": 8}, [linear("int4", "int8")], (4, 8, False, False), True),
        (
            {"w_bit": 8, "a_bit": 8, "kv_cache": False},
            [{"type": "group", "configs": [linear("int8", "int8")]}, {"type": "dynamic_cache"}],
            (8, 8, False, True),
            True,
        ),
        ({"is_sparse": True}, [linear("int8", "int8")], (8, 8, True, False), False),
        ({}, [{"type": "float_sparse"}, linear("int8", "int8")], (8, 8, True, False), False),
        ({"w_bit": 4, "a_bit": 4}, [{"type": "autoround_quant"}], (4, 4, False, False), False),
    ],
)
def test_the_label_says_what_the_practice_does(
    tmp_path: Path,
    given: dict[str, Any],
    process: list[dict[str, Any]],
    right: tuple[int, int, bool, bool],
    corrected: bool,
) -> None:
    practice = {
        "apiversion": "modelslim_v1",
        "metadata": {"label": given},
        "spec": {"process": process},
    }
    saved = file(tmp_path, practice)
    label = read(saved.file)["metadata"]["label"]
    assert (label["w_bit"], label["a_bit"], label["is_sparse"], label["kv_cache"]) == right
    assert bool(saved.corrected) == corrected


def test_quantized_attention_is_in_the_label(tmp_path: Path) -> None:
    low = {"dtype": "fp4", "scope": "s", "symmetric": True, "method": "m"}
    process = [linear("int8", "int8"), {"type": "fa3_quant"}]
    for extra, label in (({}, {}), ({"qconfig": low}, {"fa_bit": 4})):
        spec = {"process": [process[0], process[1] | extra]}
        saved = file(tmp_path, {"apiversion": "modelslim_v1", "spec": spec})
        written = read(saved.file)["metadata"]["label"]
        assert written["fa_quant"] is True
        assert written.items() >= label.items()
