"""Conformance suite of the contract of routers, with real processes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import httpx
import psutil

from cluster import find_processes, lease_ports, port_owners, sweep
from trainables._contract import require, require_nothing_left
from trainables._trial import Json, TrialFailure
from trainables.disaggregated._conformance import (
    Changes,
    check_options,
    flow_of,
    require_misfits,
    split_of,
)
from trainables.disaggregated._front import Front
from trainables.disaggregated._options import DECODE, MIXED, PREFILL, ROLES, Role
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._proof import Unproven, complete, read_events
from trainables.disaggregated._router import Router, make_router
from trainables.engines.testing import drive, trial_in, words_of

ANSWER = 400
"""Tokens of the answer in the middle of which its instance ends."""

_HOST, _PORT = "127.0.0.1", 23456
_QUESTIONS = 8
"""For each instance of a role: that by chance one of two gets none happens once in 30,000 times."""
_ANSWER_S = 60.0
_READY_S = 150.0
_DEATH_NOTICED_S = 120.0


@dataclass(frozen=True)
class Stand:
    """What stands for an instance that serves, as long as its context lasts.

    It answers ``/v1/completions`` as vLLM does, in its role and in the flow of the split: as many
    tokens as were asked for, one every 5 ms.

    Attributes:
        url: ``http://host:port`` on this host.
        requests: The bodies of the completions it was asked for so far, as they came.
        die: Ends it at once, in the middle of answers. May be repeated.
    """

    url: str
    requests: Callable[[], Sequence[Mapping[str, Json]]]
    die: Callable[[], None]


Serve: TypeAlias = Callable[[Role], AbstractContextManager[Stand]]
Standing: TypeAlias = Mapping[str, Stand]


@dataclass(frozen=True)
class _Suite:
    """What the parts of :func:`check_router` share."""

    router: Router
    serve: Serve
    split: Plan
    folder: Path
    run_id: str

    @contextmanager
    def running(self, name: str, instances: Sequence[Instance]) -> Iterator[tuple[Front, Standing]]:
        """The router in front of stands for these, once it has answered; they end with it."""
        trial = trial_in(self.folder / name, self.run_id)
        with ExitStack() as held:
            stands = {one.name: held.enter_context(self.serve(one.role)) for one in instances}
            serving = [_at(one, stands[one.name].url) for one in instances]
            flow = flow_of(self.split)
            front = held.enter_context(Front.start(trial, self.router, serving, flow))
            drive(front.answers(self.split.served_name), within_s=_READY_S)
            yield front, stands
        require_nothing_left(self.run_id)

    @property
    def one_of_each(self) -> list[Instance]:
        return list({one.role: one for one in self.split.instances}.values())

    def ask(self, front: Front, number: int) -> None:
        complete(front.base_url, self.split.served_name, _ANSWER_S, number)

    def require_told(self, front: Front, instance: Instance) -> None:
        """Who asks is told that an instance is gone."""
        try:
            self.ask(front, 1)
        except Unproven:
            return
        require(False, f"the only {instance.role} instance is gone, and a question is answered")


def check_router(
    block: Mapping[str, Json],
    serve: Serve,
    *,
    folder: Path,
    trial: Mapping[str, Json] | None = None,
    misfits: Changes = (),
    matters: Changes = (),
    neutral: Changes = (),
) -> None:
    """Check the whole contract. The router is started three times.

    Args:
        block: A ``router`` block that can be carried out here.
        serve: Stands for an instance of a role.
        folder: Empty folder for trials.
        trial: The rest of a ``trial`` block that it routes for, as in :func:`check_transfer`; its
            ``transfer`` decides the flow.
        misfits: Changes of ``trial``, each of which it cannot route for.
        matters: Changes of ``block``, each of which changes results.
        neutral: Changes of ``block`` that only concern where, or how long one waits.
    """
    check_options(block, make_router, matters, neutral)
    rest = {**(trial or {}), "router": block}
    router, split = make_router(block), split_of(rest)
    said = router.misfits(split, flow_of(split))
    require(said == [], f"a split that it routes for has misfits: {said}")
    for change in misfits:
        other = split_of({**rest, **change})
        require_misfits(router.misfits(other, flow_of(other)), change)
    _check_launch(router, split)
    suite = _Suite(router, serve, split, folder, f"router-{uuid.uuid4().hex}")
    try:
        _check_life(suite)
        _check_break(suite)
        _check_death(suite)
    finally:
        sweep(suite.run_id, grace_s=0)


def _check_launch(router: Router, split: Plan) -> None:
    """The command is always the same, and is told its port and all instances."""
    path = router.ready_path
    require(path.startswith("/"), f"ready_path is {path!r}, no path of a URL")
    flow = flow_of(split)
    ones = [
        replace(one, host=_HOST, port=_PORT + 1 + number)
        for number, one in enumerate(split.instances)
    ]
    words = words_of(router.launch(_HOST, _PORT, ones, flow))
    again = words_of(router.launch(_HOST, _PORT, ones, flow))
    require(words == again, "launch() is not always the same")
    other = words_of(router.launch(_HOST, _PORT - 1, ones, flow))
    require(words != other, "two routers would listen at the same port")
    for number, one in enumerate(ones):
        moved = [*ones[:number], replace(one, port=_PORT + 1000), *ones[number + 1 :]]
        other = words_of(router.launch(_HOST, _PORT, moved, flow))
        require(words != other, f"it is not told where {one.name} is")


def _check_life(suite: _Suite) -> None:
    """Every question is answered once, by all instances in turn, until it is ended."""
    router, split = suite.router, suite.split
    with suite.running("life", split.instances) as (front, stands):
        port = int(front.base_url.rpartition(":")[2])
        strangers = port_owners(port) - {found.pid for found in find_processes(suite.run_id)}
        require(not strangers, f"{strangers} listen on its port and are not of its run")
        ready = httpx.get(f"{front.base_url}{router.ready_path}", timeout=10, trust_env=False)
        said = f"{router.ready_path} answers {ready.status_code} although it routes"
        require(ready.status_code == 200, said)
        before = {name: len(stand.requests()) for name, stand in stands.items()}
        count = _QUESTIONS * max(len(split.of(role)) for role in ROLES)
        for number in range(1, count + 1):
            suite.ask(front, number)
        asked = {name: stand.requests()[before[name] :] for name, stand in stands.items()}
    idle = [name for name, bodies in asked.items() if not bodies]
    require(not idle, f"none of {count} questions was passed on to {', '.join(idle)}")
    answering = [one.name for one in split.instances if one.role in (DECODE, MIXED)]
    bodies = [body for name in answering for body in asked[name]]
    require(len(bodies) == count, f"{count} questions were answered {len(bodies)} times")
    prompts = {str(body.get("prompt")) for body in bodies}
    require(len(prompts) == count, f"{count} questions became {len(prompts)} different ones")
    names = {body.get("model") for body in bodies}
    require(names == {split.served_name}, f"instances are asked for the model {names}")
    lease_ports(ports=(port,)).release()


def _check_break(suite: _Suite) -> None:
    """An instance that ends while it answers: nobody takes half of an answer for the whole."""
    answering = next(one for one in suite.one_of_each if one.role in (DECODE, MIXED))
    with suite.running("break", suite.one_of_each) as (front, stands):
        try:
            _listen(front.base_url, suite.split.served_name, stands[answering.name].die)
        except (Unproven, httpx.HTTPError):
            suite.require_told(front, answering)
        else:
            require(False, f"{answering.name} ended while it answered, and the answer looks whole")


def _check_death(suite: _Suite) -> None:
    """A prefill instance that is gone is told; so is the end of the router itself."""
    with suite.running("death", suite.one_of_each) as (front, stands):
        for instance in (one for one in suite.one_of_each if one.role == PREFILL):
            stands[instance.name].die()
            suite.require_told(front, instance)
        for pid in port_owners(int(front.base_url.rpartition(":")[2])):
            psutil.Process(pid).kill()
        deadline = time.monotonic() + _DEATH_NOTICED_S
        while time.monotonic() < deadline:
            try:
                front.check("benchmark")
            except TrialFailure as failure:
                require(bool(str(failure)), "a death without a message")
                return
            time.sleep(0.05)
    require(False, "the router died and nobody noticed")


def _listen(base_url: str, name: str, die: Callable[[], None]) -> None:
    """Read a long answer, whose instance ends after its first token, to its end."""
    body = {"model": name, "prompt": "one two", "max_tokens": ANSWER, "stream": True}
    limits = httpx.Timeout(10.0, read=_ANSWER_S)
    url = f"{base_url}/v1/completions"
    with httpx.stream("POST", url, json=body, timeout=limits, trust_env=False) as reply:
        read_events(_dying(reply.iter_lines(), die))


def _dying(lines: Iterator[str], die: Callable[[], None]) -> Iterator[str]:
    for line in lines:
        yield line
        if line.startswith("data:"):
            die()


def _at(instance: Instance, url: str) -> Instance:
    parts = urlsplit(url)
    return instance.serving(str(parts.hostname), int(parts.port or 0), url)
