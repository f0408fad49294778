"""What is delivered runs: scripts by running them, manifests by the schemas of Kubernetes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.disaggregated.splits import ASCEND, CPU, split
from trainables._program import StageError
from trainables.disaggregated._deploy import deployment_files
from trainables.disaggregated._deploy_words import kubernetes_word, shell_lines, slot
from trainables.disaggregated._plan import Instance, Plan
from trainables.engines import Launch

RECIPE = {
    "prefill": {"tensor-parallel-size": 8, "data-parallel-size": 2, "enforce-eager": True},
    "decode": {"data-parallel-size": 16, "max-num-seqs": 40},
    "devices": (16, 16),
}
LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/instance")
SAY = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


def documents(files: dict[str, str], name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(files[f"kubernetes/{name}.yaml"]))


def container(document: dict[str, Any]) -> dict[str, Any]:
    (only,) = document["spec"]["template"]["spec"]["containers"]
    return dict(only)


def said(script: str, folder: Path, *, program: str = "vllm") -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of what a script starts, a program that tells them."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    fake = tools / program
    fake.write_text(f"#!{sys.executable}\n{SAY}\n")
    fake.chmod(0o755)
    env = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", folder / script], env=env, capture_output=True, text=True, check=True
    )
    argv, environment = json.loads(done.stdout)
    return argv, environment


def written(files: dict[str, str], folder: Path, **values: str) -> None:
    """Write the scripts, with ``hosts.env`` filled in as a user would."""
    for name, text in files.items():
        if "/" not in name:
            (folder / name).write_text(text)
    hosts = folder / "hosts.env"
    text = hosts.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", text)
        assert count == 1, name
    hosts.write_text(text)


def test_scripts_run_the_recipe_on_the_addresses_that_were_filled_in(tmp_path: Path) -> None:
    files = deployment_files(split({"type": "mooncake"}, **RECIPE, instances=(2, 1)))
    assert [name for name in files if "/" not in name] == [
        "hosts.env",
        "prefill-1.sh",
        "prefill-2.sh",
        "decode-1.sh",
        "router.sh",
    ]
    hosts = {"PREFILL_1_HOST": "192.0.0.1", "PREFILL_2_HOST": "192.0.0.2"}
    written(files, tmp_path, **hosts, DECODE_1_HOST="192.0.0.3", INTERFACE="eth0")
    argv, env = said("prefill-2.sh", tmp_path)
    assert argv[:8] == [
        *("serve", "/models/m", "--served-model-name", "m"),
        *("--host", "192.0.0.2", "--port", "7101"),
    ]
    config = json.loads(argv[argv.index("--kv-transfer-config") + 1])
    assert (config["kv_role"], config["kv_port"]) == ("kv_producer", "36100")
    assert env["HCCL_IF_IP"] == env["VLLM_HOST_IP"] == "192.0.0.2"
    assert env["HCCL_SOCKET_IFNAME"] == "eth0"
    assert env["ASCEND_RT_VISIBLE_DEVICES"] == ",".join(map(str, range(16)))
    argv, _ = said("router.sh", tmp_path, program="python")
    assert argv[:6] == [
        "-m",
        "trainables.disaggregated.router",
        *["--host", "127.0.0.1", "--port", "8000"],
    ]
    assert argv[6:11] == [
        "--prefill",
        "http://192.0.0.1:7100",
        "http://192.0.0.2:7101",
        "--decode",
        "http://192.0.0.3:7102",
    ]


def test_a_script_asks_for_what_was_not_filled_in(tmp_path: Path) -> None:
    written(deployment_files(split({"type": "mooncake"}, **RECIPE)), tmp_path)
    done = subprocess.run(["sh", tmp_path / "decode-1.sh"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "DECODE_1_HOST" in done.stderr
    assert "fill in hosts.env" in done.stderr


def test_addresses_of_the_trial_are_filled_in_and_no_device_is_used_twice(tmp_path: Path) -> None:
    whole = split({"type": "mooncake"}, devices=(1, 1), instances=(2, 1))
    serving = tuple(
        one.serving("10.0.0.7", 5000 + one.number, "http://10.0.0.7:1") for one in whole.instances
    )
    plan = Plan(**{**vars(whole), "instances": serving, "interface": "bond0"})
    files = deployment_files(plan)
    assert files["hosts.env"].splitlines()[1:] == [
        "MODEL=/models/m",
        "INTERFACE=bond0",
        "PREFILL_1_HOST=10.0.0.7",
        "PREFILL_1_DEVICES=0",
        "PREFILL_2_HOST=10.0.0.7",
        "PREFILL_2_DEVICES=1",
        "DECODE_1_HOST=10.0.0.7",
        "DECODE_1_DEVICES=2",
        "ROUTER_HOST=127.0.0.1",
    ]
    ports = [re.findall(r"--port (\d+)", text)[0] for text in files.values() if "exec" in text]
    assert len(set(ports)) == len(ports) == 4
    assert "10.0.0.7" not in "".join(text for name, text in files.items() if name != "hosts.env")


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=25, deadline=None)
@given(
    words=st.lists(TEXT, max_size=5),
    values=st.dictionaries(
        st.one_of(
            st.from_regex(r"[A-Z]{4,8}", fullmatch=True),
            st.from_regex(r"[a-z; $()'-]{4,8}", fullmatch=True),
        ),
        TEXT,
        max_size=4,
    ),
    host=TEXT,
)
def test_scripts_quote_whatever_is_in_them(
    words: list[str], values: dict[str, str], host: str
) -> None:
    """Nothing in an argument, a variable's name or its value is ever read by the shell."""
    argv = [sys.executable, "-c", SAY, *words, f"pre{slot('HOST')}post'{slot('HOST')}"]
    launch = Launch(tuple(argv), {**values, "OWN": f"x{slot('HOST')}"}, unset=("GONE",))
    script = "\n".join(shell_lines(launch))
    env = {"HOST": host, "GONE": "here"}
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, check=True)
    told, environment = json.loads(done.stdout)
    assert told == [*words, f"pre{host}post'{host}"]
    assert environment["OWN"] == f"x{host}"
    assert "GONE" not in environment
    for name, value in values.items():
        assert environment[name] == value


@pytest.mark.parametrize(
    "files",
    [
        deployment_files(split({"type": "mooncake"}, **RECIPE, instances=(3, 2))),
        deployment_files(split({"type": "mooncake_layerwise"}, **RECIPE)),
        deployment_files(split({"type": "example"}, CPU), name="cpu-pd"),
        deployment_files(split({"type": "nixl"}, CPU), device_resource="nvidia.com/gpu"),
        deployment_files(
            Plan(
                Path("/m"),
                "m",
                ASCEND,
                (Instance("mixed", 1, "one", 1),),
                router={"type": "builtin"},
            )
        ),
    ],
    ids=["mooncake", "layerwise", "example", "nixl", "mixed"],
)
def test_manifests_are_what_kubernetes_takes(files: dict[str, str]) -> None:
    """Names, labels and ports of all objects fit together."""
    manifests = {name: text for name, text in files.items() if name.startswith("kubernetes/")}
    assert "kubernetes/router.yaml" in manifests
    every = [one for text in manifests.values() for one in yaml.safe_load_all(text)]
    services = {one["metadata"]["name"]: one for one in every if one["kind"] == "Service"}
    workloads = [one for one in every if one["kind"] != "Service"]
    assert {one["kind"] for one in workloads} == {"StatefulSet", "Deployment"}
    for one in workloads:
        name, spec = one["metadata"]["name"], one["spec"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name)
        labels = spec["template"]["metadata"]["labels"]
        assert tuple(labels) == LABELS
        assert labels == spec["selector"]["matchLabels"] == services[name]["spec"]["selector"]
        named = [port["name"] for port in container(one)["ports"]]
        assert named == [port["targetPort"] for port in services[name]["spec"]["ports"]]
        assert "@@" not in yaml.safe_dump(one)
        mounted = {mount["name"] for mount in container(one).get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in spec["template"]["spec"].get("volumes", [])}
        if one["kind"] == "StatefulSet":
            assert spec["serviceName"] == name
            assert services[name]["spec"]["clusterIP"] == "None"
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate: schemas")
    for one in every:
        validate.validate(one, "1.30", strict=True)


def test_the_router_of_kubernetes_knows_all_pods_by_name() -> None:
    files = deployment_files(split({"type": "mooncake"}, **RECIPE, instances=(2, 1)))
    _, deployment = documents(files, "router")
    command = container(deployment)["command"]
    first, second = command.index("--prefill"), command.index("--decode")
    assert command[first + 1 : second] == [
        "http://pd-prefill-0.pd-prefill:8000",
        "http://pd-prefill-1.pd-prefill:8000",
    ]
    assert command[second + 1] == "http://pd-decode-0.pd-decode:8000"
    assert command[command.index("--host") + 1] == "$(POD_IP)"
    assert documents(files, "prefill")[1]["spec"]["replicas"] == 2


def test_pods_of_ascend_have_their_devices_and_addresses() -> None:
    files = deployment_files(split({"type": "mooncake"}, **RECIPE))
    pod = container(documents(files, "decode")[1])
    assert pod["resources"]["limits"] == pod["resources"]["requests"]
    assert pod["resources"]["limits"] == {"huawei.com/Ascend910": "16"}
    assert pod["env"][0]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    env = {one["name"]: one.get("value") for one in pod["env"]}
    assert env["HCCL_IF_IP"] == "$(POD_IP)"
    assert env["HCCL_BUFFSIZE"] == "600"
    assert "ASCEND_RT_VISIBLE_DEVICES" not in env
    assert pod["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    other = deployment_files(
        split({"type": "mooncake"}, **RECIPE), device_resource="huawei.com/ascend-1980"
    )
    assert "huawei.com/ascend-1980: '16'" in other["kubernetes/prefill.yaml"]


@settings(deadline=None)
@given(st.text(st.sampled_from("$()aB{ "), max_size=12))
def test_what_looks_like_a_variable_of_kubernetes_stays_what_it_is(text: str) -> None:
    word = kubernetes_word(f"{text}{slot('B')}{text}", {"B": "$(B)"})
    assert expanded(word, {"B": "there", "a": "wrong", "aB": "wrong"}) == f"{text}there{text}"


def expanded(text: str, variables: dict[str, str]) -> str:
    """What Kubernetes makes of a word: ``$$`` is ``$``, ``$(NAME)`` a variable it knows."""

    def put(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", put, text)


def test_instances_that_differ_have_a_set_of_their_own_each() -> None:
    sides = {"kv_connector": "C", "kv_role": "kv_both", "kv_rank": "$RANK"}
    whole = split({"type": "custom", "prefill": sides, "decode": sides}, CPU, instances=(2, 1))
    files = deployment_files(whole)
    sets = [one for one in documents(files, "prefill") if one["kind"] == "StatefulSet"]
    assert [(one["metadata"]["name"], one["spec"]["replicas"]) for one in sets] == [
        ("pd-prefill-1", 1),
        ("pd-prefill-2", 1),
    ]
    assert "http://pd-prefill-2-0.pd-prefill-2:8000" in files["kubernetes/router.yaml"]


def test_a_decode_first_router_needs_an_address_to_be_called_at(tmp_path: Path) -> None:
    files = deployment_files(split({"type": "mooncake_layerwise"}, **RECIPE))
    written(files, tmp_path)
    done = subprocess.run(["sh", tmp_path / "router.sh"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "ROUTER_HOST" in done.stderr


def test_what_cannot_work_is_not_delivered() -> None:
    with pytest.raises(StageError, match="prefill's must be a multiple"):
        deployment_files(
            split({"type": "mooncake"}, decode={"tensor-parallel-size": 2}, devices=(1, 2))
        )


def test_what_only_a_simulation_has_chosen_says_so() -> None:
    engine = {"type": "simulated", "of": ASCEND, "latency": {"type": "analytic"}}
    files = deployment_files(split({"type": "mooncake"}, engine, **RECIPE))
    real = deployment_files(split({"type": "mooncake"}, **RECIPE))
    assert files.keys() == real.keys()
    for name, text in files.items():
        assert "# Chosen by simulation" in "\n".join(text.splitlines()[:2])
        assert (
            text.replace("# Chosen by simulation; measure it before you rely on it.\n", "")
            == (real[name])
        )


def test_engines_with_configuration_files_are_delivered_with_those(tmp_path: Path) -> None:
    installed = tmp_path / "config.json"
    installed.write_text(json.dumps({"ServerConfig": {"port": 1}, "BackendConfig": {}}))
    engine = {"type": "mindie", "command": ["daemon"], "config_path": str(installed)}
    instances = tuple(Instance("mixed", number, "one", 1) for number in (1, 2))
    files = deployment_files(Plan(Path("/m"), "m", engine, instances, router={"type": "builtin"}))
    assert sorted(files) == [
        *("mixed-1/config.json", "mixed-1/serve.sh", "mixed-2/config.json", "mixed-2/serve.sh"),
        "router.sh",
    ]
    ports = [json.loads(files[f"mixed-{n}/config.json"])["ServerConfig"]["port"] for n in (1, 2)]
    assert ports == [7100, 7101]
    assert "--mixed http://127.0.0.1:7100 http://127.0.0.1:7101" in files["router.sh"]


def test_the_programs_are_those_of_the_image_in_a_pod_and_of_the_node_in_a_script() -> None:
    python = shutil.which("python3") or sys.executable
    files = deployment_files(split({"type": "nixl"}, {"type": "vllm", "command": [python]}))
    assert container(documents(files, "prefill")[1])["command"][0] == Path(python).name
    assert python in files["prefill-1.sh"]
