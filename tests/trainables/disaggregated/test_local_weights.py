"""Instances serve from the copy of the model on their node's own disk."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from trainables import LOCAL_WEIGHTS, TrialSpec
from trainables import _staging as staging
from trainables._agent import Agent
from trainables._staging import Limits, stage

Carried = Callable[..., dict[str, Any]]
SPLIT = {"prefill_instances": 1, "decode_instances": 2}


def until(agent: Agent, happens: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    deadline = time.monotonic() + 240
    while not happens(state := agent.poll(0.5)):
        assert time.monotonic() < deadline, state
    return state


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A node's own disk, whose copies nobody in this process uses afterwards."""
    yield tmp_path / "nvme"
    for copy in [one for one in staging._USED if one.is_relative_to(tmp_path)]:
        os.close(staging._USED.pop(copy))


def context(disk: Path, space: int | None = None) -> dict[str, Any]:
    wanted = {"folder": str(disk), "copies": 1, "space": space, "timeout": 600.0}
    return {LOCAL_WEIGHTS: wanted}


def test_instances_on_one_node_share_one_copy(carry_out: Carried, disk: Path) -> None:
    report = carry_out(SPLIT, context=context(disk))
    assert report["status"] == "measured", report
    (copy,) = disk.glob("npu-tuner-weights/*/tiny")
    copied = []
    for name in ("prefill-1", "decode-1", "decode-2"):
        folder = report["folder"] / name
        assert f"--model {copy}" in (folder / "engine.log").read_text()
        copied += (folder / "weights.log").read_text().splitlines()
    assert sorted(copied) == ["copying config.json", "copying stub.json"]


@pytest.mark.parametrize("made", [True, False], ids=["before", "meanwhile"])
def test_a_copy_that_others_use_is_used_at_once(
    options: dict[str, Any], disk: Path, made: bool
) -> None:
    """They use it for as long as they serve, and nobody else waits for that."""
    source, found = Path(options["model"]), []
    copy = stage(source, disk, Limits(1))
    others = threading.Thread(target=lambda: found.append(stage(source, disk, Limits(1))))
    with copy.parent.with_name(f"{copy.parent.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if made else fcntl.LOCK_EX)
        others.start()
        if not made:
            others.join(0.5)
            assert others.is_alive()
            fcntl.flock(lock, fcntl.LOCK_SH)
        others.join(240)
        assert found == [copy]


def test_people_are_told_what_a_node_waits_for(
    options: dict[str, Any], disk: Path, tmp_path: Path, run_id: str
) -> None:
    source = Path(options["model"])
    copy = stage(source, disk, Limits(1))
    folder = str(tmp_path / "trial")
    spec = TrialSpec(
        run_id, "id", folder, "disaggregated", "candidate", {}, 0, {}, 1, context(disk)
    )
    request = {
        "spec": spec.to_json(),
        "engine": options["engine"],
        "model": str(source),
        "served_name": "tiny",
        "options": {},
        "env": {},
        "config": {},
    }
    agent = Agent("127.0.0.1")
    try:
        with copy.parent.with_name(f"{copy.parent.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            agent.start(request)
            state = until(agent, lambda state: bool(state["note"]))
            waiting = f"{source} to the node's disk: waiting for who copies it already"
            assert (state["stage"], state["note"]) == ("weights", waiting)
        assert until(agent, lambda state: state["status"] != "starting")["status"] == "serving"
    finally:
        agent.stop()


def test_without_a_wish_for_copies_none_is_made(carry_out: Carried, disk: Path) -> None:
    report = carry_out({"mixed_instances": 1})
    assert report["status"] == "measured", report
    assert not disk.exists()


def test_no_room_for_a_copy_is_told_with_the_instance(
    carry_out: Carried, disk: Path, run_id: str
) -> None:
    report = carry_out(SPLIT, context=context(disk, space=3))
    failure = report["failure"]
    assert (report["status"], failure["class"]) == ("failed", "tool")
    assert failure["instance"] in failure["message"]
    assert "no room for a copy of the model" in failure["message"]
    assert "cluster.local_weights" in failure["suggestion"]
