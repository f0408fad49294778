"""What an ``engine`` block may say, the command it makes, and what of it decides results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainables import StageError
from trainables.engines import Deployment, Launch, engine_type, engine_types, make_engine

DEPLOYED = Deployment(Path("/models/m"), "name", "localhost", 20001)
SAID = ["--served-model-name", "name", "--host", "localhost", "--port", "20001"]


def launched(
    *, options: dict[str, Any] | None = None, env: dict[str, Any] | None = None, **keys: Any
) -> Launch:
    engine = make_engine({"type": "vllm-ascend", **keys})
    where = (Path("/models/m"), "name", "localhost", 20001)
    return engine.launch(Deployment(*where, options or {}, env or {}))


def argv(**how: Any) -> list[str]:
    return list(launched(**how).argv)


def problems(**keys: Any) -> dict[str, str]:
    return dict(make_engine({"type": "vllm", "command": [sys.executable], **keys}).problems())


def test_the_defaults_are_those_of_the_reference() -> None:
    options = make_engine({"type": "vllm-ascend"}).options
    assert options.model_dump() == {
        "type": "vllm-ascend",
        "command": ["python"],
        "entrypoint": "vllm.entrypoints.openai.api_server",
        "env_vars": {},
        "served_model_name": None,
        "host": "localhost",
        "port": None,
        "health_check_endpoint": "/v1/models",
        "startup_timeout": 600,
        "args": {},
        "extra_args": [],
        "record_iterations": False,
        "health_check": {
            "service_errors": {"fatal_patterns": {}, "retryable_patterns": {}},
            "benchmark_errors": {"fatal_patterns": {}, "retryable_patterns": {}},
            "log_snippet_length": 200,
        },
    }


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"enforce-eager": True}, ["--enforce-eager"]),
        ({"enforce-eager": False, "seed": None}, []),
        ({"max-model-len": 4096}, ["--max-model-len", "4096"]),
        ({"max_model_len": 4096}, ["--max_model_len", "4096"]),
        ({"--max-model-len": 4096, "-tp": 2}, ["--max-model-len", "4096", "-tp", "2"]),
        ({"gpu-memory-utilization": 0.9}, ["--gpu-memory-utilization", "0.9"]),
        ({"a": {"x": True, "y": [1, "ü"]}}, ["--a", '{"x":true,"y":[1,"ü"]}']),
        ({"a": ["b c", 2]}, ["--a", '["b c",2]']),
        ({"a": "with space; $(x) [1] = +"}, ["--a", "with space; $(x) [1] = +"]),
        ({"a": 0, "b": ""}, ["--a", "0", "--b", ""]),
        ({"port": 20001, "served_model_name": "name"}, []),
    ],
)
def test_arguments(args: dict[str, Any], expected: list[str]) -> None:
    assert argv(args=args)[len(argv()) :] == expected


def test_tuned_parameters_win_over_the_same_argument_in_another_spelling() -> None:
    args = {"max_num_seqs": 8, "seed": 1}
    found = argv(args=args, options={"--max-num-seqs": 32, "enable-prefix-caching": False})
    assert found[len(argv()) :] == ["--seed", "1", "--max-num-seqs", "32"]


def test_an_empty_tuned_argument_is_left_out() -> None:
    args = {"quantization": "ascend", "seed": 1}
    assert argv(args=args, options={"quantization": ""})[len(argv()) :] == ["--seed", "1"]


def test_tuned_variables_reach_the_environment_and_the_arguments() -> None:
    args = {
        "max-num-seqs": "$MAX_NUM_SEQS",
        "speculative-config": {"method": "mtp", "num_speculative_tokens": "${TOKENS}"},
        "lora": "$LORA",
    }
    env = {"MAX_NUM_SEQS": 32, "TOKENS": 2, "LORA": "", "UNSET": None}
    launch = launched(args=args, env=env, env_vars={"UNSET": "x", "KEPT": "$TOKENS"})
    assert list(launch.argv[len(argv()) :]) == [
        *("--max-num-seqs", "32"),
        *("--speculative-config", '{"method":"mtp","num_speculative_tokens":2}'),
    ]
    assert {"MAX_NUM_SEQS": "32", "TOKENS": "2", "KEPT": "$TOKENS"}.items() <= launch.env.items()
    assert launch.unset == ("LORA", "UNSET")
    assert not {"LORA", "UNSET"} & launch.env.keys()


def test_arguments_as_one_types_them_give_way_to_the_tuned_ones() -> None:
    extra = ["--seed", "$SEED", "--max-num-seqs", "8", "--rope", "$ROPE"]
    found = argv(
        extra_args=extra, options={"max-num-seqs": 16}, env={"SEED": 7, "ROPE": float("nan")}
    )
    begin = argv().index("--served-model-name")
    assert found[begin : begin + 4] == ["--seed", "7", "--max-num-seqs", "8"]
    assert found[-2:] == ["--max-num-seqs", "16"]
    assert "--rope" not in found


def test_a_variable_without_value_inside_an_argument_is_told() -> None:
    with pytest.raises(StageError, match=r"\$N has no value") as caught:
        argv(args={"a": "x$N"}, env={"N": None})
    assert caught.value.failure == "input"


def test_the_two_forms_of_a_command() -> None:
    module = ["-m", "vllm.entrypoints.openai.api_server", "--model", "/models/m"]
    assert argv() == ["python", *module, *SAID]
    assert argv(command=["/opt/vllm/bin/python"]) == ["/opt/vllm/bin/python", *module, *SAID]
    assert argv(command=["nice", "python3"])[:3] == ["nice", "python3", "-m"]
    assert argv(command=["vllm", "serve"]) == ["vllm", "serve", "/models/m", *SAID]
    assert argv(entrypoint="my.server")[1:3] == ["-m", "my.server"]
    assert argv(command=["bin/vllm", "serve"])[0] == str(Path.cwd() / "bin/vllm")


def test_variables_become_text_and_may_override_ours() -> None:
    variables = {"A": 1, "B": 0.5, "C": True, "D": "x y", "VLLM_NO_USAGE_STATS": 0}
    engine = make_engine({"type": "vllm", "env_vars": variables})
    assert engine.launch(DEPLOYED).env == {
        "A": "1",
        "B": "0.5",
        "C": "True",
        "D": "x y",
        "VLLM_NO_USAGE_STATS": "0",
    }


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.1", "127.1.2.3", "10.1.2.3", "172.31.0.1", "192.168.0.9"),
        *("169.254.1.1", "::1", "[::1]", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1"),
    ],
)
def test_private_hosts_are_accepted(host: str) -> None:
    assert make_engine({"type": "vllm", "host": host}).options.host == host.strip("[]")


@pytest.mark.parametrize(
    "host",
    [
        *("0.0.0.0", "::", "8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"),
        *("", "example.com", "192.0.2.1", "224.0.0.1", "localhost:80"),
    ],
)
def test_hosts_that_others_reach_are_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="link-local"):
        make_engine({"type": "vllm", "host": host})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", 0),
        ("port", 65536),
        ("startup_timeout", 0),
        ("health_check_endpoint", "v1/models"),
        ("health_check_endpoint", "/a b"),
        ("env_vars", {"A=B": "x"}),
        ("env_vars", {"A": None}),
        ("env_vars", {"A": "x\0"}),
        ("command", []),
        ("command", [""]),
        ("entrypoint", "a b"),
        ("served_model_name", ""),
        ("type", "vllm-ascend2"),
        ("unknown", 1),
    ],
)
def test_what_no_engine_can_use_is_refused(key: str, value: Any) -> None:
    with pytest.raises((ValidationError, KeyError), match=key if key != "type" else value):
        make_engine({"type": "vllm", key: value})


@pytest.mark.parametrize(
    ("args", "key", "said"),
    [
        ({"model": "/other"}, "args.model", "trial decides"),
        ({"port": 1}, "args.port", "contradicts port, which is 8000"),
        ({"--host": "10.0.0.1"}, "args.--host", "'localhost'"),
        ({"served_model_name": "n"}, "args.served_model_name", "which is None"),
        ({"api_key": "s"}, "args.api_key", "leave it out"),
        ({"a_b": 1, "a-b": 2}, "args.a-b", "a_b"),
        ({"a b": 1}, "args.a b", "name of an argument"),
        ({"a=b": True}, "args.a=b", "name of an argument"),
        ({"--": 1}, "args.--", "name of an argument"),
        ({"chat-template": "./x.jinja"}, "args.chat-template", "absolute"),
    ],
)
def test_arguments_that_cannot_be_right(args: dict[str, Any], key: str, said: str) -> None:
    found = problems(port=8000, args=args)
    assert list(found) == [key]
    assert said in found[key]


def test_what_the_deployment_decides_is_no_extra_argument() -> None:
    found = problems(port=8000, extra_args=["--port", "8000", "--seed", "1"])
    assert list(found) == ["extra_args"]
    assert "--port" in found["extra_args"]


def test_repeating_what_is_so_anyway_is_fine() -> None:
    args = {"host": "localhost", "--port": 8000, "served-model-name": "n"}
    assert problems(port=8000, served_model_name="n", args=args) == {}


def test_all_problems_are_said_at_once() -> None:
    found = problems(
        command=["/no/such/vllm", "serve"], entrypoint="a.b", args={"model": "x", "port": 1}
    )
    assert list(found) == ["args.model", "args.port", "command", "entrypoint"]
    assert "/no/such/vllm" in found["command"]


def identity(**keys: Any) -> Any:
    return make_engine({"type": "vllm", "command": ["/no/python"], **keys}).identity()


@pytest.mark.parametrize(
    "keys",
    [
        {"host": "127.0.0.1", "port": 4000, "startup_timeout": 5},
        {"served_model_name": "other", "health_check_endpoint": "/health"},
        {"args": {"disable-log-requests": True, "uvicorn_log_level": "debug"}},
        {"args": {"port": 1, "served-model-name": "x", "seed": None, "enforce-eager": False}},
        {"env_vars": {"VLLM_LOGGING_LEVEL": "DEBUG", "ASCEND_GLOBAL_LOG_LEVEL": 3}},
    ],
)
def test_what_changes_no_number_is_not_in_the_identity(keys: dict[str, Any]) -> None:
    assert identity(**keys) == identity()


@pytest.mark.parametrize(
    "keys",
    [
        {"args": {"max-logprobs": 5}},
        {"extra_args": ["--max-logprobs", "5"]},
        {"args": {"quantization": "ascend"}},
        {"env_vars": {"VLLM_USE_V1": 0}},
        {"entrypoint": "other.server"},
        {"command": ["/no/vllm", "serve"]},
    ],
)
def test_what_may_change_a_number_is_in_the_identity(keys: dict[str, Any]) -> None:
    assert identity(**keys) != identity()
    json.dumps(identity(**keys), allow_nan=False)


def test_one_command_in_two_spellings_has_one_identity() -> None:
    one = identity(args={"max_model_len": 512, "a": {"x": 1, "y": 2}, "seed": None})
    assert one == identity(args={"--a": {"y": 2, "x": 1}, "max-model-len": "512"})


@pytest.fixture
def environment(tmp_path: Path) -> Callable[..., Path]:
    """Make an environment with packages; returns its ``bin`` folder."""

    def make(**packages: str) -> Path:
        site = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
        for name, version in packages.items():
            info = site / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        folder = tmp_path / "env" / "bin"
        folder.mkdir()
        (folder.parent / "pyvenv.cfg").touch()
        (folder / "python").symlink_to(sys.executable)
        return folder

    return make


def test_versions_are_read_from_the_interpreters_own_packages(
    environment: Callable[..., Path],
) -> None:
    python = environment(vllm="0.11.0", vllm_ascend="0.11.0rc1") / "python"
    engine = make_engine({"type": "vllm-ascend", "command": [str(python)]})
    assert engine.versions() == {"vllm": "0.11.0", "vllm-ascend": "0.11.0rc1"}
    assert engine.identity()["versions"] == engine.versions()
    assert "versions" not in identity()


def test_engines_by_name() -> None:
    assert {"vllm", "vllm-ascend"} <= set(engine_types())
    with pytest.raises(KeyError, match="vllm-ascend"):
        engine_type("nothing")
    with pytest.raises(KeyError, match="no engine"):
        make_engine({})
