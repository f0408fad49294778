"""The router of a trial: a process on the trial's own node, in front of all instances."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack

from cluster import PortLease, PortUnavailableError, ProcessTree, child_environment
from trainables._program import StageError
from trainables._trial import Progress, TrialFailure, TrialRun, surroundings
from trainables.disaggregated._plan import Instance
from trainables.disaggregated._proof import (
    Unproven,
    aside,
    broken_connections,
    complete,
    wait_for_completion,
)
from trainables.disaggregated._router import Router, bracketed, is_loopback
from trainables.disaggregated._transfer import Flow
from trainables.disaggregated._transfer_ports import lease_transfer_ports
from trainables.engines import Launch
from trainables.engines._log import EngineLog, death

_STAGE = "router"
_READY_S = 120.0
_ANSWER_S = 120.0
_STOP_GRACE_S = 5.0
_LAST_QUESTION = 9999


class Front:
    """A router that runs. Made by :meth:`start`; leaving its context ends it.

    Attributes:
        base_url: ``http://host:port``, without a slash at its end.
        notes: What its adapter has to say.
    """

    def __init__(
        self, base_url: str, launch: Launch, tree: ProcessTree, log: EngineLog, resources: ExitStack
    ) -> None:
        self.base_url = base_url
        self.notes = launch.notes
        self._tree, self._log = tree, log
        self._resources = resources

    @classmethod
    def start(
        cls,
        trial: TrialRun,
        router: Router,
        instances: Sequence[Instance],
        flow: Flow,
        taken: range = range(0),
    ) -> Front:
        """Start a router in front of instances that serve; its log is ``router.log``.

        Args:
            taken: Ports at which it must not listen.

        Raises ``TrialFailure`` when its program cannot be started, or no port is free.
        """
        host = _address_towards([one.host for one in instances])
        with ExitStack() as resources:
            (port,) = resources.enter_context(_lease(taken)).ports
            launch = _launch(router, host, port, instances, flow)
            log = EngineLog(trial.folder / "router.log", launch.argv, launch.notes)
            tree = _spawn(trial, launch, log)
            resources.callback(tree.stop, _STOP_GRACE_S)
            return cls(f"http://{bracketed(host)}:{port}", launch, tree, log, resources.pop_all())

    def check(self, stage: str) -> None:
        """Raise ``TrialFailure`` if it has ended, with what its log says about it."""
        code = self._tree.poll()
        if code is not None:
            raise death((), self._log, what="the router", stage=stage, code=code, otherwise="tool")

    def answers(self, served_name: str) -> Generator[Progress, None, None]:
        """Yield until a completion was streamed through it; the first one may have to wait for
        the router to come up.

        Raises ``TrialFailure`` when there is none in time.
        """
        ends = threading.Event()
        begun = time.monotonic()
        steps = aside(
            lambda: wait_for_completion(self.base_url, served_name, _READY_S, 0, ends),
            Progress("health", "no completion through the router yet"),
        )
        try:
            for progress in steps:
                self.check("health")
                yield progress
        except Unproven as error:
            self.check("health")
            raise self._failure("startup", "health", error, time.monotonic() - begun) from error
        finally:
            ends.set()

    def still_answers(self, served_name: str, stage: str) -> Generator[Progress, None, None]:
        """Yield until one more completion was streamed: what was measured before counts then."""
        steps = aside(
            lambda: complete(self.base_url, served_name, _ANSWER_S, _LAST_QUESTION),
            Progress(stage, "one more completion through the router"),
        )
        try:
            for progress in steps:
                self.check(stage)
                yield progress
        except Unproven as error:
            raise self._failure("tool", stage, error, None) from error

    def broken_connections(self, stage: str) -> Generator[Progress, None, Counter[str]]:
        """Yield until the router has told how many requests failed so far because an instance was
        not reached or broke off, by instance; none where it does not count them."""
        note = Progress(stage, "what the router has counted")
        return (yield from aside(lambda: broken_connections(self.base_url), note))

    def stop(self) -> None:
        self._resources.close()

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _failure(
        self, sort: str, stage: str, error: Unproven, seconds: float | None
    ) -> TrialFailure:
        late = "" if seconds is None else f" within {seconds:.0f} s"
        return TrialFailure(
            "startup" if sort == "startup" else "tool",
            stage,
            f"no completion through the router{late}: {error}",
            excerpt=self._log.excerpt(),
            suggestion=f"see {self._log.file}, and the instances' engine.log beside it",
        )


def _lease(taken: range) -> PortLease:
    try:
        return lease_transfer_ports(1, taken)
    except PortUnavailableError as error:
        raise TrialFailure("startup", _STAGE, str(error)) from error


def _launch(
    router: Router, host: str, port: int, instances: Sequence[Instance], flow: Flow
) -> Launch:
    try:
        return router.launch(host, port, instances, flow)
    except StageError as error:
        said, suggestion = str(error), error.suggestion
        raise TrialFailure(error.failure, _STAGE, said, suggestion=suggestion) from error


def _spawn(trial: TrialRun, launch: Launch, log: EngineLog) -> ProcessTree:
    label = f"{trial.label}-router"
    environment = child_environment(trial.spec.run_id, label, {**surroundings(), **launch.env})
    for name in launch.unset:
        environment.pop(name, None)
    try:
        return ProcessTree.start(
            launch.argv,
            env=environment,
            cwd=launch.cwd or trial.folder,
            log=log.file,
            run_id=trial.spec.run_id,
            label=label,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        said = f"the router's program {launch.argv[0]} cannot be started: {error.strerror}"
        suggestion = "name a program that is there in router.command"
        raise TrialFailure("input", _STAGE, said, suggestion=suggestion) from error


def _address_towards(hosts: Sequence[str]) -> str:
    """The address of this node that others reach it at; a loopback one where all are on one.

    A datagram socket that is connected has the address that packets would leave from; nothing is
    sent.
    """
    distant = [host for host in hosts if not is_loopback(host)]
    if not distant:
        return "127.0.0.1"
    family = socket.AF_INET6 if ":" in distant[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((distant[0], 9))
        address: str = probe.getsockname()[0]
        return address
