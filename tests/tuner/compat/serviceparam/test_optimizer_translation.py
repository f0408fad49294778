"""What becomes of settings: compared with experiments that were read by a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from searchers import Space, make_strategy
from tests.tuner.compat.serviceparam.settings import (
    field,
    filled,
    problems,
    shipped,
    translated,
    vllm,
    with_mindie,
)
from trainables.benchmarks import benchmark_type
from trainables.engines import engine_type
from tuner._fitness import Fitness
from tuner.compat import Tools
from tuner.views import view_type

GOLDENS = Path(__file__).parent / "goldens"
A = field("A", min=1, max=16, dtype="int", value=4)


def golden(name: str, folder: Path) -> Any:
    return yaml.safe_load((GOLDENS / f"{name}.yaml").read_text().replace("FOLDER", str(folder)))


@pytest.mark.parametrize("name", ["mindie", "vllm", "vllm_native"])
def test_shipped_settings_come_to_what_they_ask(name: str, tmp_path: Path) -> None:
    mindie = name == "mindie"
    text = filled(name.removesuffix("_native"))
    tools = ("mindie", "ais_bench") if mindie else ("vllm", "vllm_benchmark")
    native = name.endswith("_native")
    text = with_mindie(text, tmp_path) if mindie else text
    found = translated(text, tmp_path, *tools, native=native)
    assert not found.problems
    expected = golden(name, tmp_path)
    assert found.data == expected["experiment"]
    assert list(found.data) == list(expected["experiment"])
    assert list(found.notes) == expected["notes"]


@pytest.mark.parametrize("name", ["mindie", "vllm", "vllm_native"])
def test_the_parts_are_understood_by_those_they_are_for(name: str, tmp_path: Path) -> None:
    data = golden(name, tmp_path)["experiment"]
    search = dict(data["search"])
    space = TypeAdapter(Space).validate_python(search.pop("space"))
    strategy = make_strategy(search.pop("type"), search, space=space, seed=0)
    assert strategy.most() == 50
    engine = data["trial"]["engine"]
    engine_type(engine["type"]).Options.model_validate(engine)
    benchmark = data["trial"]["benchmark"]
    benchmark_type(benchmark["type"]).Options.model_validate(benchmark)
    if "fitness" in data["objective"]:
        Fitness.model_validate(data["objective"]["fitness"])
    view = data["views"][0]
    view_type(view["type"]).Options.model_validate(view)


def test_placeholders_of_the_shipped_settings_are_no_values(tmp_path: Path) -> None:
    found = problems(shipped("vllm"), tmp_path)
    assert set(found) == {
        "vllm.command.model",
        "vllm.command.served_model_name",
        "vllm_benchmark.command.dataset_name",
    }
    assert "'model_path' is the placeholder" in found["vllm.command.model"]
    found = problems(shipped("mindie"), tmp_path, "mindie", "ais_bench")
    assert {"ais_bench.command.models", "ais_bench.command.datasets"} <= set(found)
    assert "cannot be read" in found["mindie.config_path"]
    found = problems("", tmp_path)
    assert "is not set" in found["vllm.command.model"]
    assert "number of requests" in found["vllm_benchmark.command.num_prompts"]
    assert problems("", tmp_path, "mindie", "ais_bench")["ais_bench.command.num_prompts"]


def test_the_load_of_a_rate_that_is_a_range_is_calibrated(tmp_path: Path) -> None:
    rate = field("REQUESTRATE", min=0.5, max=40, dtype="float", value=7)
    found = translated(vllm(A, rate), tmp_path)
    assert found.data["trial"]["load"] == {
        "type": "calibrated",
        "concurrency": 100,
        "request_rate": 40.0,
    }
    assert found.data["trial"]["baseline"]["REQUESTRATE"] == 7
    assert found.data["trial"]["positions"]["REQUESTRATE"] == "request_rate"
    assert "REQUESTRATE: a throughput below 0.5" in "\n".join(found.notes)


@pytest.mark.parametrize(
    ("rate", "load"),
    [
        ({"min": 0, "max": 0, "value": 0}, {"type": "fixed", "concurrency": 100}),
        (
            {"min": 5, "max": 5, "value": 5},
            {"type": "fixed", "concurrency": 100, "request_rate": 5.0},
        ),
        (
            {"min": 1, "max": 9, "constant": 3.5},
            {"type": "fixed", "concurrency": 100, "request_rate": 3.5},
        ),
    ],
)
def test_a_fixed_rate_is_one_run(
    rate: dict[str, Any], load: dict[str, Any], tmp_path: Path
) -> None:
    found = translated(vllm(A, field("REQUESTRATE", dtype="float", **rate)), tmp_path)
    assert found.data["trial"]["load"] == load


def test_only_candidates_send_the_sample(tmp_path: Path) -> None:
    for size, expected in ((200, {"requests": 200}), (500, {}), (9000, {}), (0, {})):
        found = translated(vllm(A, extra=f"sample_size = {size}"), tmp_path)
        rest = {k: v for k, v in found.data["trial"]["load"].items() if k == "requests"}
        assert rest == expected
        assert found.data["trial"]["benchmark"]["num_prompts"] == 500


def test_arguments_of_the_engine(tmp_path: Path) -> None:
    others = """--tensor-parallel-size $A --no-enable-prefix-caching --seed=-1 -O 3
        --speculative-config '{"n": $A, "method": "mtp"}' --hf-overrides '{"a": [1]}'"""
    seqs = field("MAX_NUM_SEQS", min=1, max=8, dtype="int", value=4)
    found = translated(vllm(A, seqs, others=others), tmp_path)
    assert not found.problems
    engine = found.data["trial"]["engine"]
    assert engine["args"] == {"max-num-seqs": "$MAX_NUM_SEQS"}
    assert engine["extra_args"] == [
        *("--tensor-parallel-size", "$A", "--no-enable-prefix-caching", "--seed=-1", "-O", "3"),
        *("--speculative-config", '{"n": $A, "method": "mtp"}', "--hf-overrides", '{"a": [1]}'),
    ]
    engine_type(engine["type"]).Options.model_validate(engine)
    assert found.data["cluster"] == {"resources": {"NPU": 16}}
    assert "there is no MAX_NUM_BATCHED_TOKENS" in "\n".join(found.notes)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ("--a 'x", "quotation"),
        ("--max_num_seqs 7", "end the effect of the field MAX_NUM_SEQS"),
        ("--tensor-parallel-size 0", "1 or more"),
    ],
)
def test_arguments_that_cannot_be_meant(others: str, said: str, tmp_path: Path) -> None:
    seqs = field("MAX_NUM_SEQS", min=1, max=8, dtype="int", value=4)
    found = problems(vllm(A, seqs, others=others), tmp_path)
    assert said in found["vllm.command.others"]


def benchmark_of(others: str, folder: Path) -> dict[str, Any]:
    found = translated(vllm(A, command=f"others = '{others}'"), folder)
    assert not found.problems
    block: dict[str, Any] = found.data["trial"]["benchmark"]
    benchmark_type(block["type"]).Options.model_validate(block)
    return block


def test_arguments_of_the_benchmark(tmp_path: Path) -> None:
    plain = {
        "type": "vllm_benchmark",
        "dataset_name": "random",
        "num_prompts": 500,
        "ignore_eos": False,
        "temperature": None,
    }
    assert benchmark_of("", tmp_path) == plain
    others = "--ignore-eos --custom-output-len 1500 --random-input-len=512 --disable-tqdm"
    assert benchmark_of(others, tmp_path) == plain | {
        "ignore_eos": True,
        "random_input_len": 512,
        "args": {"custom-output-len": "1500"},
    }


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ("fast", "belongs to no flag"),
        ("--a 1 2", "several values"),
        ("--max_len 1 --max-len 2", "twice"),
        ("--random-input-len many", "has to be a number"),
    ],
)
def test_arguments_of_the_benchmark_that_cannot_be_meant(
    others: str, said: str, tmp_path: Path
) -> None:
    found = problems(vllm(A, command=f"others = '{others}'"), tmp_path)
    assert said in found["vllm_benchmark.command.others"]


def test_hosts_and_ports(tmp_path: Path) -> None:
    text = vllm(A).replace("[vllm.command]", "[vllm.command]\nhost = '0.0.0.0'\nport = 8000")
    found = translated(text, tmp_path)
    assert found.data["trial"]["engine"]["host"] == "localhost"
    said = "\n".join(found.notes)
    assert "vllm.command.host: 0.0.0.0 is open to everybody" in said
    assert "vllm.command.port: 8000 is not used" in said
    wrong = problems(text.replace("8000", "80000"), tmp_path)
    assert "from 1 to 65535" in wrong["vllm.command.port"]


def test_the_slo_is_a_limit_where_it_has_a_penalty(tmp_path: Path) -> None:
    def limits(**penalties: float) -> list[Any]:
        extra = "\n".join(f"{name}_penalty = {value}" for name, value in penalties.items())
        found = translated(vllm(A, extra=extra), tmp_path).data["objective"]["limits"]
        return [limit["metric"] for limit in found]

    assert limits() == ["ttft_mean_s", "tpot_mean_s", "success_rate"]
    assert limits(tpot=0) == ["ttft_mean_s", "success_rate"]
    assert limits(ttft=0, tpot=0, success_rate=0) == []
    extra = "tpot_penalty = 0\ntpot_slo = 0.1"
    assert "tpot_slo: is no limit" in "\n".join(translated(vllm(A, extra=extra), tmp_path).notes)


def test_percentiles_count_where_the_settings_say_so(tmp_path: Path) -> None:
    text = with_mindie(filled("mindie"), tmp_path)
    config = "[ais_bench.performance_config]\ntime_to_first_token = {metric='TTFT', algorithm="
    found = translated(f"{text}\n{config}'slo_p90'}}", tmp_path, "mindie", "ais_bench")
    assert found.data["objective"]["fitness"]["ttft_metric"] == "ttft_p90_s"
    assert found.data["objective"]["limits"][0]["metric"] == "ttft_p90_s"
    wrong = problems(f"{text}\n{config}'n'}}", tmp_path, "mindie", "ais_bench")
    assert "no latency" in wrong["ais_bench.performance_config.time_to_first_token.algorithm"]


def test_the_constants_of_the_swarm_count_where_they_are_given(tmp_path: Path) -> None:
    extra = "n_particles = 300\niters = 2\n[pso_options]\nw = 0.9\n[pso_strategy]\nc1 = 'random'"
    found = translated(vllm(A, extra=extra), tmp_path)
    search = {k: v for k, v in found.data["search"].items() if k != "space"}
    assert search == {
        "type": "particle_swarm",
        "particles": 200,
        "iterations": 2,
        "preset": "constriction",
        "inertia": 0.9,
        "cognitive": {"schedule": "random", "start": 2.0},
    }
    assert found.data["budget"] == {}
    assert "n_particles: 300 counts as 200" in "\n".join(found.notes)


def test_another_search(tmp_path: Path) -> None:
    found = translated(vllm(A), tmp_path, search="random")
    assert found.data["search"] == {
        "type": "random",
        "trials": 50,
        "space": found.data["search"]["space"],
    }
    assert found.data["budget"] == {}
    endless = translated(vllm(A), tmp_path, search="grid")
    assert endless.data["budget"] == {"trials": 50}
    assert "unknown strategy 'swarm'" in problems(vllm(A), tmp_path, search="swarm")["--search"]


def test_words_in_logs_that_end_a_trial(tmp_path: Path) -> None:
    extra = """[health_check]
log_snippet_length = 100
[health_check.service_errors.fatal_patterns]
out_of_memory = ["OOM killed"]
device_error = []
[health_check.benchmark_errors.retryable_patterns]
network_error = ["reset"]
"""
    found = translated(vllm(A, extra=extra), tmp_path)
    engine = found.data["trial"]["engine"]
    assert engine["health_check"] == {
        "service_errors": {"fatal_patterns": {"out_of_memory": ["OOM killed"]}},
        "benchmark_errors": {"retryable_patterns": {"network_error": ["reset"]}},
        "log_snippet_length": 100,
    }
    engine_type(engine["type"]).Options.model_validate(engine)
    assert found.data["budget"]["retries"] == 2
    only_fatal = extra.replace("retryable_patterns", "fatal_patterns")
    assert translated(vllm(A, extra=only_fatal), tmp_path).data["budget"] == {}
    only_the_engine = only_fatal.replace("service_errors.fatal", "service_errors.retryable")
    assert translated(vllm(A, extra=only_the_engine), tmp_path).data["budget"]["retries"] == 2


def test_what_is_not_used_is_said(tmp_path: Path) -> None:
    extra = "step_size = 0.5\nmem_coefficient = 0.7\nftol = 0.1\nmax_fine_tune = 3\n"
    extra += "[data_storage]\npso_top_k = 0\n[kubectl]\nkubectl_default_path='/k'\n"
    extra += "[vllm]\nprocess_name = 'vllm'\nwork_path = '/w'"
    said = "\n".join(translated(vllm(A, extra=extra), tmp_path).notes)
    places = ("step_size", "mem_coefficient", "ftol", "max_fine_tune")
    for place in (*places, "vllm.process_name", "vllm.work_path", "kubectl.kubectl_default_path"):
        assert f"{place}: " in said


def test_where_everything_goes(tmp_path: Path) -> None:
    extra = "output = 'out'\nparticles_time_out = 60\nwait_start_time = 70\n"
    extra += "theory_guided_enable = false\n[data_storage]\nstore_dir = 'tables'\npso_top_k = 0"
    tools = Tools(vllm=["/opt/vllm/bin/vllm", "serve"])
    found = translated(vllm(A, extra=extra), tmp_path, backup=True, tools=tools, device="cpu")
    data, view = found.data, found.data["views"][0]
    assert data["storage"] == view["folder"] == str(tmp_path / "out")
    assert view["store"] == str(found.store) == str(tmp_path / "tables")
    assert (view["backup"], view["classes"]) == (True, ["VllmSimulator", "VllmBenchMark"])
    assert data["trial"]["timeouts"] == {"benchmark": 60}
    assert data["trial"]["engine"]["startup_timeout"] == 70
    assert data["trial"]["engine"]["type"] == "vllm"
    assert data["trial"]["engine"]["command"] == ["/opt/vllm/bin/vllm", "serve"]
    assert data["trial"]["benchmark"]["command"] == ["/opt/vllm/bin/vllm"]
    assert data["trial"]["early_rejection"]["memory"] is False
    python = translated(vllm(A), tmp_path, tools=Tools(vllm=["/opt/vllm/bin/python"])).data["trial"]
    assert python["engine"]["command"] == ["/opt/vllm/bin/python"]
    interpreted = ["/opt/vllm/bin/python", "-m", "vllm.entrypoints.cli.main"]
    assert python["benchmark"]["command"] == interpreted
    assert set(data["cluster"]["resources"]) == {"CPU"}


def test_a_slave_and_a_search_of_nothing(tmp_path: Path) -> None:
    found = problems(vllm(extra='service = "slave"'), tmp_path)
    assert "on the master only" in found["service"]
    assert "nothing in it is to be searched" in problems(vllm(), tmp_path)["vllm.target_field"]


def test_only_a_load_of_the_engine_counts_twice_named_services(tmp_path: Path) -> None:
    command = "host = '10.0.0.7'\nmodel = '/other'"
    said = "\n".join(translated(vllm(A, command=command), tmp_path).notes)
    assert "vllm_benchmark.command.model: is '/other', but '/m' in vllm.command" in said
    assert "vllm_benchmark.command.host" in said
