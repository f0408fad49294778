"""What a member of a crew does on its node: one engine, from its start to its last process."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cluster import find_processes, lease_ports, port_owners
from trainables import TrialFailure, TrialSpec
from trainables._agent import Agent
from trainables._crew import LocalMember, MemberFailure, within

Request = Callable[..., dict[str, Any]]


@pytest.fixture
def agent(run_id: str) -> Iterator[Agent]:
    """One that is stopped before the run is looked for what it left."""
    one = Agent("127.0.0.1")
    yield one
    one.stop()


@pytest.fixture
def request_of(tmp_path: Path, options: dict[str, Any], run_id: str) -> Request:
    """What an agent is told to start."""

    def make(**env: Any) -> dict[str, Any]:
        folder = str(tmp_path / "trial" / "decode-1")
        spec = TrialSpec(run_id, uuid.uuid4().hex, folder, "disaggregated", "candidate", {}, 0, {})
        return {
            "spec": spec.to_json(),
            "engine": options["engine"],
            "model": options["model"],
            "served_name": "tiny",
            "options": {"max-num-seqs": 4},
            "env": env,
            "config": {},
        }

    return make


def until(agent: Agent, *statuses: str, within_s: float = 240) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while (state := agent.poll(0.5))["status"] not in statuses:
        assert time.monotonic() < deadline, state
    return state


def test_an_engine_is_started_in_its_folder_proven_and_ended(
    agent: Agent, request_of: Request, tmp_path: Path, run_id: str
) -> None:
    assert agent.poll(0.0)["status"] == "idle"
    agent.reserve()
    agent.start(request_of())
    state = until(agent, "serving", "failed")
    assert state["status"] == "serving", state
    assert state["served_name"] == "tiny"
    assert set(state["seconds"]) == {"deploy", "health"}
    assert state["base_url"] == f"http://127.0.0.1:{state['port']}"
    assert httpx.get(f"{state['base_url']}/v1/models", trust_env=False).status_code == 200
    assert "--max-num-seqs 4" in (tmp_path / "trial/decode-1/engine.log").read_text()
    agent.stop()
    assert not find_processes(run_id)
    assert agent.poll(0.0)["status"] == "idle"
    agent.stop()


def test_the_death_of_an_engine_that_served_is_told_with_its_last_words(
    agent: Agent, request_of: Request, tmp_path: Path
) -> None:
    file = tmp_path / "die"
    agent.start(request_of(STUB_DIE_FILE=str(file)))
    until(agent, "serving")
    file.with_suffix(".new").write_text("RuntimeError: HCCL timeout")
    file.with_suffix(".new").rename(file)
    state = until(agent, "failed")
    assert state["failure"]["class"] == "device"
    assert "HCCL timeout" in state["failure"]["message"]
    assert "HCCL timeout" in state["failure"]["excerpt"]


def test_an_engine_that_does_not_come_up_has_failed(agent: Agent, request_of: Request) -> None:
    agent.start(request_of(STUB_DIE_AT_START="torch.OutOfMemoryError: NPU out of memory"))
    failure = until(agent, "failed")["failure"]
    assert (failure["class"], failure["stage"]) == ("out_of_memory", "deploy")


def test_a_start_can_be_given_up(agent: Agent, request_of: Request, run_id: str) -> None:
    agent.start(request_of(STUB_START_DELAY=600))
    assert agent.poll(0.0)["status"] == "starting"
    agent.stop()
    assert not find_processes(run_id)


def test_an_engine_killed_while_it_starts_has_failed(
    agent: Agent, request_of: Request, run_id: str
) -> None:
    agent.start(request_of(STUB_START_DELAY=600))
    deadline = time.monotonic() + 120
    while not (found := [one.pid for one in find_processes(run_id) if _is_engine(one.pid)]):
        assert time.monotonic() < deadline
        agent.poll(0.05)
    os.kill(found[0], signal.SIGKILL)
    assert until(agent, "failed")["failure"]["class"] == "out_of_memory"


def _is_engine(pid: int) -> bool:
    try:
        return "split_engine" in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def test_reserved_ports_are_neighbours_outside_of_what_is_taken(agent: Agent) -> None:
    there = agent.reserve(3, (20000, 60000))
    ports = there["ports"]
    assert ports == list(range(ports[0], ports[0] + 3))
    assert not set(ports) & set(range(20000, 60000))
    with pytest.raises(RuntimeError, match="taken by another trial"):
        lease_ports(ports=ports[:1])
    agent.stop()
    lease_ports(ports=ports[:1]).release()


def test_an_engine_does_not_listen_at_what_is_taken(agent: Agent, request_of: Request) -> None:
    agent.reserve(0, (20000, 64000))
    agent.start(request_of())
    state = until(agent, "serving", "failed")
    assert state["status"] == "serving", state
    assert state["port"] >= 64000


def test_where_everything_is_taken_the_engine_is_not_started(
    agent: Agent, request_of: Request
) -> None:
    agent.reserve(0, (1, 65536))
    agent.start(request_of())
    failure = until(agent, "failed")["failure"]
    assert (failure["class"], failure["stage"]) == ("startup", "deploy")
    assert "outside 1 to 65535" in failure["message"]


def test_engines_listen_where_they_have_to_be_reached_and_not_further() -> None:
    assert Agent("10.1.2.3").reserve(near=True)["host"] == "127.0.0.1"
    assert Agent("10.1.2.3").reserve(near=False)["host"] == "10.1.2.3"
    with pytest.raises(TrialFailure, match="can be reached from outside") as caught:
        Agent("198.51.100.7").reserve(near=False)
    assert caught.value.failure == "input"
    assert "trial.interface" in caught.value.suggestion
    loopback = next(
        name
        for name, found in psutil.net_if_addrs().items()
        if any(one.address == "127.0.0.1" for one in found)
    )
    named = Agent("198.51.100.7").reserve(near=False, interface=loopback)
    assert (named["host"], named["interface"]) == ("127.0.0.1", loopback)
    with pytest.raises(TrialFailure, match="no network interface nosuch0"):
        Agent("127.0.0.1").reserve(near=False, interface="nosuch0")


def test_an_engine_listens_at_its_nodes_address(request_of: Request) -> None:
    one = Agent("127.0.0.2")
    try:
        one.reserve(near=False)
        one.start(request_of())
        state = until(one, "serving", "failed")
        assert state["base_url"] == f"http://127.0.0.2:{state['port']}"
        assert port_owners(state["port"])
    finally:
        one.stop()


def test_a_member_answers_in_turn_and_tells_failures_with_its_node() -> None:
    member = LocalMember("node-a", "127.0.0.1")
    try:
        assert member.call("poll", 0.0, timeout=120)["status"] == "idle"
        with pytest.raises(MemberFailure, match="no method 'explode'") as caught:
            member.call("explode", timeout=120)
        assert caught.value.to_json()["node"] == "127.0.0.1"
    finally:
        member.close()


def test_a_member_that_is_silent_is_lost() -> None:
    class Silent:
        def wait(self, seconds: float) -> bool:
            return False

        def get(self) -> None:
            raise AssertionError

    member = LocalMember("node-a", "10.0.0.9")
    with pytest.raises(MemberFailure, match=r"no answer from node-a for 0\.1 s") as caught:
        within(Silent(), 0.1, member)
    member.close()
    assert caught.value.failure == "lost"
