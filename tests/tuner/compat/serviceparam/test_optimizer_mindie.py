"""What becomes of settings for MindIE: its own file says what they leave open."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tuner.compat.serviceparam.settings import filled, problems, translated, with_mindie


def test_mindie_reads_the_baseline_from_variables_and_its_own_file(tmp_path: Path) -> None:
    text = with_mindie(filled("mindie"), tmp_path)
    environment = {"CONCURRENCY": "64"}
    found = translated(text, tmp_path, "mindie", "ais_bench", environment=environment)
    assert found.data["trial"]["baseline"] == {
        "max_batch_size": 200,
        "max_prefill_batch_size": 50,
        "prefill_time_ms_per_req": 150,
        "support_select_batch": False,
        "CONCURRENCY": 64,
        "REQUESTRATE": 100,
    }
    assert "the environment variable CONCURRENCY says" in "\n".join(found.notes)
    wrong = problems(text, tmp_path, "mindie", "ais_bench", environment={"CONCURRENCY": "many"})
    assert "has to be a number" in wrong["mindie.target_field[7].value"]


def test_mindie_is_found_by_its_installation(tmp_path: Path) -> None:
    text = with_mindie(filled("mindie"), tmp_path)
    named = re.sub("config_path = .*", "", text)
    for folder in ("mindie-service/conf", "mindie_llm/conf"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text((tmp_path / "mindie.json").read_text())
        environment = {"MIES_INSTALL_PATH": str(tmp_path / "mindie-service")}
        found = translated(named, tmp_path, "mindie", "ais_bench", environment=environment)
        file = tmp_path / folder / "config.json"
        assert found.data["trial"]["engine"]["config_path"] == str(file)
        file.unlink()
    assert "cannot be read" in problems(named, tmp_path, "mindie")["mindie.config_path"]


def test_a_configuration_of_mindie_that_cannot_be_used(tmp_path: Path) -> None:
    text = with_mindie(filled("mindie"), tmp_path, modelWeightPath="")
    assert "names no model" in problems(text, tmp_path, "mindie", "ais_bench")["mindie.config_path"]
    for content in ("{", "[]", "{}"):
        (tmp_path / "mindie.json").write_text(content)
        found = translated(text, tmp_path, "mindie", "ais_bench").problems
        assert [place for place, _ in found] == ["mindie.config_path"]
