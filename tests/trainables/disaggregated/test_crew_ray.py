"""A trial whose instances are in bundles of a placement group of a real Ray."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import Connection, connect, find_processes, parse_bundle
from trainables import TrialSpec, trial_type

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SPLIT = {"prefill_instances": 1, "decode_instances": 1, "decode_shape": "two"}
SHAPES = {
    "one": {"devices": 1, "roles": ["prefill", "mixed"]},
    "two": {"devices": 2, "roles": ["decode"]},
}

LONG = {
    "type": "builtin",
    "requests": 4000,
    "warm_ups": 0,
    "workload": {"type": "random", "input_tokens": 8, "output_tokens": 200},
}


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with connect("local", name="crew", num_cpus=2, resources={"NPU": 3}) as started:
        yield started


class Carrier:
    """The actor of a trial, in a placement group as Ray Tune makes it."""

    def __init__(self, config: dict[str, Any]) -> None:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        from trainables.ray import Trial

        bundles = [bundle["resources"] for bundle in config["placement"]["bundles"]]
        self.group = placement_group(bundles, config["placement"]["strategy"])
        where = PlacementGroupSchedulingStrategy(self.group, 0, True)
        actor = ray.remote(Trial).options(num_cpus=1, scheduling_strategy=where, max_concurrency=2)
        self.actor = actor.remote(config)

    def step(self) -> dict[str, Any]:
        import ray

        found: dict[str, Any] = ray.get(self.actor.train.remote(), timeout=300)
        return found

    def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        deadline = time.monotonic() + 600
        while not condition(report := self.step()):
            assert time.monotonic() < deadline, report
        return report

    def end(self) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        ray.kill(self.actor)
        remove_placement_group(self.group)


@pytest.fixture
def config(
    connection: Connection, options: dict[str, Any], run_id: str, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """The configuration of a Ray trial."""

    def make(parameters: dict[str, Any], **changes: Any) -> dict[str, Any]:
        settings = {"options": options | {"shapes": SHAPES} | changes, "search": None, "goal": {}}
        folder = tmp_path / uuid.uuid4().hex
        spec = TrialSpec(
            run_id, uuid.uuid4().hex, str(folder), "disaggregated", "candidate", parameters, 0,
            settings,
        )  # fmt: skip
        twin = trial_type("disaggregated").from_settings(settings)
        placement = twin.placement(parameters, "candidate", parse_bundle({"CPU": 0.2, "NPU": 8}))
        bundles = [dict(vars(bundle)) for bundle in placement.bundles]
        bundles[0]["resources"] = {"CPU": 1.0}
        return {
            "spec": spec.to_json(),
            "placement": {"bundles": bundles, "strategy": placement.strategy},
        }

    return make


@pytest.fixture
def carrier(config: Callable[..., dict[str, Any]]) -> Iterator[Callable[..., Carrier]]:
    carriers: list[Carrier] = []

    def carry(*arguments: Any, **changes: Any) -> Carrier:
        carriers.append(Carrier(config(*arguments, **changes)))
        return carriers[-1]

    yield carry
    for one in carriers:
        one.end()


def engines(run_id: str) -> dict[str, psutil.Process]:
    """The engines that run, by the instance they are of."""
    found = {}
    for one in find_processes(run_id):
        with suppress(psutil.Error):
            process = psutil.Process(one.pid)
            if "split_engine" in process.cmdline():
                found[Path(process.cwd()).name] = process
    return found


def vanish(run_id: str) -> None:
    ends(lambda: not find_processes(run_id))


def ends(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_instances_have_the_devices_of_their_bundles_and_an_actor_carries_two_trials(
    carrier: Callable[..., Carrier], config: Callable[..., dict[str, Any]], run_id: str
) -> None:
    import ray

    seen: dict[str, str] = {}

    def looks(report: dict[str, Any]) -> bool:
        for name, process in engines(run_id).items():
            with suppress(psutil.Error):
                seen[name] = process.environ().get("ASCEND_RT_VISIBLE_DEVICES", "")
        return bool(report.get("done"))

    one = carrier(SPLIT)
    report = one.until(looks)
    assert report["status"] == "measured", report
    assert {name: len(devices.split(",")) for name, devices in seen.items()} == {
        "prefill-1": 1,
        "decode-1": 2,
    }
    assert len({*",".join(seen.values()).split(",")}) == 3
    vanish(run_id)

    second = config(SPLIT)
    assert ray.get(one.actor.reset.remote(second), timeout=300)
    report = one.until(lambda report: report.get("done"))
    assert report["status"] == "measured"
    assert report["identity"] == second["spec"]["identity"]


@pytest.mark.slow
def test_the_death_of_a_member_fails_the_trial_and_names_instance_and_node(
    carrier: Callable[..., Carrier], run_id: str
) -> None:
    one = carrier(SPLIT, benchmark=LONG)
    one.until(lambda report: report["stage"].startswith("benchmark"))
    first, second = members()
    first.kill()
    report = one.until(lambda report: report.get("done"))
    assert report["status"] == "failed"
    failure = json.loads(report["failure"])
    assert failure["class"] == "lost"
    assert failure["instance"] in ("prefill-1", "decode-1")
    assert failure["message"].startswith(f"{failure['instance']} on {failure['node']} (")
    vanish(run_id)
    ends(lambda: second not in members())


@pytest.mark.slow
def test_all_engines_end_with_the_trial_that_owns_them(
    carrier: Callable[..., Carrier], run_id: str
) -> None:
    one = carrier(SPLIT, benchmark=LONG)
    one.until(lambda report: report["stage"].startswith("benchmark"))
    assert set(engines(run_id)) == {"prefill-1", "decode-1"}
    (trial,) = processes("ray::Trial")
    trial.kill()
    vanish(run_id)
    ends(lambda: not members())


@pytest.mark.slow
def test_a_member_that_is_silent_is_lost_and_nobody_waits_for_it_longer(
    carrier: Callable[..., Carrier], run_id: str
) -> None:
    one = carrier(SPLIT, benchmark=LONG, timeouts={"answer": 15})
    one.until(lambda report: report["stage"].startswith("benchmark"))
    silent, _ = members()
    silent.suspend()
    try:
        report = one.until(lambda report: report.get("done"))
        failure = json.loads(report["failure"])
        assert failure["class"] == "lost"
        assert "no answer for 15 s" in failure["message"]
    finally:
        silent.kill()  # as its node would, sooner or later
    vanish(run_id)


def members() -> list[psutil.Process]:
    """The processes of ours that own an engine each."""
    return processes("_AgentActor")


def processes(title: str) -> list[psutil.Process]:
    """Those of this test's Ray with a title."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if title in " ".join(process.cmdline()) and process.is_running():
                found.append(process)
    return found
