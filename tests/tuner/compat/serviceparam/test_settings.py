"""Where settings come from, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.compat.serviceparam.settings import configured, filled, shipped, vllm
from tuner.compat.serviceparam import SettingsError, read_settings
from tuner.compat.serviceparam._lines import lines_of, nearest


def refused(text: str, folder: Path, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as error:
        configured(text, folder, environment)
    return str(error.value).splitlines()


@pytest.mark.parametrize("name", ["mindie", "vllm"])
def test_the_shipped_settings_are_read_without_a_remark(name: str, tmp_path: Path) -> None:
    found = configured(shipped(name), tmp_path)
    assert found.notes == ()
    assert (found.settings.n_particles, found.settings.iters) == (10, 5)
    assert found.settings.ttft_slo == 1
    assert found.settings.tpot_penalty == 0
    assert found.settings.data_storage.pso_top_k == 0


def test_defaults_are_those_of_the_code(tmp_path: Path) -> None:
    settings = configured("", tmp_path).settings
    assert (settings.n_particles, settings.iters, settings.sample_size) == (5, 10, None)
    assert (settings.ttft_penalty, settings.tpot_penalty, settings.ttft_slo) == (3, 3, 0.5)
    assert settings.data_storage.pso_top_k == 3
    assert settings.ftol == float("-inf")
    names = [field.name for field in settings.mindie.target_field]
    assert names[:2] == ["max_batch_size", "max_prefill_batch_size"]
    assert names[-4:] == ["tp", "dp", "moe_ep", "moe_tp"]


def test_later_files_replace_whole_tables_of_earlier_ones(tmp_path: Path) -> None:
    home, installed, cwd = tmp_path / "home", tmp_path / "tool", tmp_path / "work"
    for folder in (home, installed, cwd):
        folder.mkdir()
    (installed / "config.toml").write_text("iters = 1\n[pso_options]\nw = 0.5\nc1 = 1.0\n")
    (home / "config.toml").write_text("iters = 2\nttft_slo = 2\n")
    (cwd / "model_eval_state.toml").write_text("tpot_slo = 3\niters = 9\n")
    (cwd / "config.toml").write_text("iters = 3\n[pso_options]\nc2 = 3.0\n")
    (cwd / "named.toml").write_text("iters = 4\n")
    (cwd / "flag.toml").write_text("n_particles = 7\n")
    places = {"home": home, "cwd": cwd, "installed": [installed]}
    plain = read_settings(None, {}, **places)  # type: ignore[arg-type]
    assert (plain.settings.iters, plain.settings.ttft_slo, plain.settings.tpot_slo) == (3, 2, 3)
    assert plain.settings.pso_options is not None
    assert (plain.settings.pso_options.w, plain.settings.pso_options.c2) == (1.8, 3.0)
    variables = {"MODEL_EVAL_STATE_CONFIG_PATH": "named.toml", "model_eval_state_TTFT_SLO": "4.5"}
    all_of_them = read_settings(Path("flag.toml"), variables, **places)  # type: ignore[arg-type]
    settings = all_of_them.settings
    assert (settings.iters, settings.n_particles, settings.ttft_slo) == (4, 7, 4.5)
    assert [file.name for file in all_of_them.sources.files][-2:] == ["named.toml", "flag.toml"]


def test_a_table_in_a_variable_joins_that_of_the_file(tmp_path: Path) -> None:
    variables = {"MODEL_EVAL_STATE_PSO_OPTIONS": '{"w": 0.9}', "model_eval_state_output": "out"}
    settings = configured("[pso_options]\nc1 = 1.5\n", tmp_path, variables).settings
    assert settings.pso_options is not None
    assert (settings.pso_options.w, settings.pso_options.c1) == (0.9, 1.5)
    assert settings.output == "out"
    assert refused("", tmp_path, {"model_eval_state_vllm": "{"})[0].startswith(
        "model_eval_state_vllm: is not valid JSON"
    )


def test_unknown_keys_are_left_out_with_a_word(tmp_path: Path) -> None:
    text = "n_particle = 3\n[vllm]\n[[vllm.target_field]]\nname = 'A'\nmaximum = 3\n"
    text += "[benchmark]\na = 1\n"
    found = configured(text, tmp_path)
    assert sorted(found.notes) == [
        "benchmark: no version of the tool uses this table any more; ignored",
        "n_particle: unknown key, ignored; was n_particles meant?",
        "vllm.target_field[0].maximum: unknown key, ignored; was max meant?",
    ]
    assert found.settings.vllm.target_field[0].max == 100


def test_all_faults_are_said_at_once_with_place_and_line(tmp_path: Path) -> None:
    text = """n_particles = 0
ttft_slo = -1
service = "boss"
sample_size = true
[health_check.service_errors.fatal_patterns]
smoke = ["x"]
[vllm]
[[vllm.target_field]]
name = "A"
[[vllm.target_field]]
name = "B"
min = "low"
dtype = "integer"
[vllm_benchmark.command]
num_prompts = 2000000
"""
    said = refused(text, tmp_path)
    places = [line.split(": ")[:2] for line in said]
    assert places == [
        ["config.toml:1", "n_particles"],
        ["config.toml:2", "ttft_slo"],
        ["config.toml:3", "service"],
        ["config.toml:4", "sample_size"],
        ["config.toml:6", "health_check.service_errors.fatal_patterns.smoke"],
        ["config.toml:12", "vllm.target_field[1].min"],
        ["config.toml:13", "vllm.target_field[1].dtype"],
        ["config.toml:15", "vllm_benchmark.command.num_prompts"],
    ]


def test_a_fault_names_the_file_or_variable_that_says_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("iters = 0\n")
    (tmp_path / "config.toml").write_text("\nn_particles = 0\n")
    places = {"home": tmp_path / "home", "cwd": tmp_path, "installed": ()}
    with pytest.raises(SettingsError) as error:
        read_settings(
            tmp_path / "mine.toml",
            {"MODEL_EVAL_STATE_TTFT_SLO": "soon"},
            **places,  # type: ignore[arg-type]
        )
    said = sorted(str(error.value).splitlines())
    assert [line.split(": ")[0] for line in said] == [
        "MODEL_EVAL_STATE_TTFT_SLO",
        "config.toml:2",
        "mine.toml:1",
    ]


def test_files_that_are_not_there_or_not_toml(tmp_path: Path) -> None:
    places = {"home": tmp_path / "home", "cwd": tmp_path, "installed": ()}
    with pytest.raises(SettingsError, match=r"config\.toml: there is none in .*--config"):
        read_settings(None, {}, **places)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"--config: .*nowhere\.toml is not there") as error:
        read_settings(
            Path("nowhere.toml"),
            {"MODEL_EVAL_STATE_CONFIG_PATH": "gone.toml"},
            **places,  # type: ignore[arg-type]
        )
    assert "MODEL_EVAL_STATE_CONFIG_PATH" in str(error.value)
    assert "is not valid TOML" in refused("n_particles = \n", tmp_path)[0]
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(None, {}, **places)  # type: ignore[arg-type]


def test_an_old_and_a_new_way_to_write_a_port(tmp_path: Path) -> None:
    for written in ("8000", '"8000"'):
        text = filled("vllm").replace("port = 8000", f"port = {written}")
        assert configured(text, tmp_path).settings.vllm.command.port == "8000"


def test_lines_of_a_file() -> None:
    lines = lines_of('a = 1\n[b]  # x\n"c" = 2\n[[b.d]]\ne = 1\n[[b.d]]\nf = 2\n[b.d.g]\nh = 1\n')
    assert nearest(lines, "a") == 1
    assert nearest(lines, "b.c") == 3
    assert nearest(lines, "b.d[0].e") == 5
    assert nearest(lines, "b.d[1].missing") == 6
    assert nearest(lines, "b.d[1].g.h") == 9
    assert nearest(lines, "nowhere") is None


def test_whether_something_was_written(tmp_path: Path) -> None:
    found = configured(vllm(), tmp_path)
    assert found.wrote("vllm.command.model")
    assert not found.wrote("vllm.command.port")
    assert not found.wrote("step_size")
