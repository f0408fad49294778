"""A running engine, from its start to the end of its last process."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from cluster import PortLease, PortUnavailableError, ProcessTree, child_environment, lease_ports
from trainables._program import FailureClass, StageError
from trainables._trial import POLL_SECONDS, Json, Progress, TrialFailure, TrialRun
from trainables.engines._engine import Deployment, Engine, Launch, Symptom
from trainables.engines._log import COMMON_SYMPTOMS, EngineLog, death, first_symptom
from trainables.engines._proof import Proof, Refused, base_url

R = TypeVar("R")

_LAST_WORDS_S = 10.0
"""How long an engine whose log says that it failed may take to end by itself."""
_LAST_PROOF_S = 120.0
"""How long an engine may take for one more answer after it was used."""
_ONLY_AT_START: tuple[FailureClass, ...] = ("input", "startup")
"""What cannot befall an engine that serves; its log may speak of it because of a request."""


class Service:
    """An engine that serves. Made by :func:`start_service`; leaving its context stops it.

    Attributes:
        base_url: ``http://host:port``, without a slash at its end.
        served_name: The model's name in requests.
        deployment: What it serves, and where.
        log: Its log; earlier starts in the same trial are in it as well.
        seconds: Duration of the stages ``deploy`` (until it listened) and ``health``.
        notes: What its adapter corrected, and what was not proven of it.
    """

    def __init__(
        self,
        engine: Engine,
        deployment: Deployment,
        tree: ProcessTree,
        log: EngineLog,
        resources: ExitStack,
        prefix: str,
        notes: Sequence[str] = (),
    ) -> None:
        self.base_url = engine.address(deployment) or base_url(deployment)
        self.served_name = deployment.served_name
        self.deployment = deployment
        self.log: Path = log.file
        self.seconds: dict[str, float] = {}
        self.notes = tuple(notes)
        self._engine, self._tree, self._log = engine, tree, log
        self._resources = resources
        self._prefix = prefix
        self._stage = f"{prefix}deploy"
        self._serves = False

    def check(self) -> None:
        """Raise :class:`TrialFailure` if the engine has ended, with what its log says about it, or
        if its log has what the user's health check looks for."""
        code = self._tree.poll()
        self._look_for_errors(ended=code is not None)
        if code is not None:
            raise death(
                self._symptoms(),
                self._log,
                what=self._name(),
                stage=self._stage,
                code=code,
                otherwise=self._unknown(),
                own_kill=self._engine.kills_itself,
            )

    def watch(self, steps: Generator[Progress, None, R]) -> Generator[Progress, None, R]:
        """Run ``steps``, which use the engine, and return their result.

        Raises :class:`TrialFailure` when the engine ends meanwhile, after closing ``steps``, or
        when it does not answer any more after their last one: what they found is then worthless,
        and the engine is stopped. So it is when ``steps`` fail and the engine is the reason.
        """
        try:
            while True:
                self.check()
                try:
                    progress = next(steps)
                except StopIteration as end:
                    result: R = end.value
                    break
                except Exception as failure:
                    # They may have failed before they first told their stage.
                    self._stage = getattr(failure, "stage", self._stage)
                    try:
                        yield from self._still_serves()
                    except TrialFailure as reason:
                        raise reason from failure
                    raise
                self._stage = progress.stage
                yield progress
        finally:
            steps.close()
        yield from self._still_serves()
        return result

    def stop(self) -> None:
        """End all its processes, give its port back. May be repeated.

        Raises ``cluster.ProcessesRemainError`` when a process cannot be ended.
        """
        self._resources.close()

    def become_ready(self) -> Generator[Progress, None, None]:
        """Yield until the engine has proven that it serves, else raise :class:`TrialFailure`."""
        begun = time.monotonic()
        timeout = self._engine.startup_timeout
        yield from self._await(self._prove(timeout=timeout), begun + timeout)
        self.seconds["health"] = round(time.monotonic() - begun - self.seconds["deploy"], 3)
        self._serves = True

    def is_there(self) -> Generator[Progress, None, None]:
        """Yield once for an engine without an API: that its processes live is all that it shows.

        Raises :class:`TrialFailure` where they do not.
        """
        try:
            yield Progress(self._stage, "a further part of its instance is started")
            self.check()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _prove(self, *, timeout: float, again: bool = False) -> Proof:
        return Proof(
            self._engine, self.deployment, self._tree, self._log, timeout=timeout, again=again
        )

    def _await(self, proof: Proof, deadline: float) -> Generator[Progress, None, None]:
        """Yield until ``proof`` has succeeded."""
        begun = time.monotonic()
        doomed: float | None = None
        try:
            yield Progress(self._stage, proof.waiting)  # whoever started it hears of it at once
            while True:
                proof.wait(POLL_SECONDS / 2)
                self.check()
                now = time.monotonic()
                if proof.listening and "deploy" not in self.seconds:
                    self.seconds["deploy"] = round(now - begun, 3)
                    self._stage = f"{self._prefix}health"
                if proof.done:
                    if proof.error is not None:
                        raise self._refusal(proof.error)
                    return
                if now >= deadline:
                    raise self._lateness(now - begun, proof.waiting)
                if doomed is None and self._has_failed():
                    doomed = now + _LAST_WORDS_S
                if doomed is not None and now >= doomed:
                    raise self._failure("startup", "has failed, but does not end", "")
                yield Progress(self._stage, proof.waiting)
        except BaseException:
            self.stop()
            raise
        finally:
            proof.halt()

    def _still_serves(self) -> Generator[Progress, None, None]:
        proof = self._prove(timeout=_LAST_PROOF_S, again=True)
        yield from self._await(proof, time.monotonic() + _LAST_PROOF_S)

    def _refusal(self, error: Exception) -> TrialFailure:
        if not isinstance(error, Refused):
            raise error
        return self._failure(self._unknown(), str(error), error.suggestion)

    def _look_for_errors(self, *, ended: bool) -> None:
        """What the user has said about the log goes before what we know of it."""
        wanted = self._engine.options.health_check
        self._log.look_for(
            wanted.service_errors,
            what=self._name(),
            stage=self._stage,
            lines=wanted.log_snippet_length,
            ended=ended,
        )

    def _has_failed(self) -> bool:
        """Whether the log of a start says so; requests may put anything in the log later on."""
        if self._serves:
            return False
        return first_symptom(self._symptoms(), self._log.text()) is not None

    def _symptoms(self) -> list[Symptom]:
        known = (*self._engine.symptoms, *COMMON_SYMPTOMS)
        return [one for one in known if not (self._serves and one.failure in _ONLY_AT_START)]

    def _lateness(self, seconds: float, waiting: str) -> TrialFailure:
        if self._serves:
            return self._failure("timeout", f"does not answer any more: {waiting}", "")
        return self._failure(
            "timeout",
            f"did not serve within {seconds:.0f} s: {waiting}",
            "raise engine.startup_timeout, or look at its log for what it waits for",
        )

    def _failure(self, failure: FailureClass, said: str, suggestion: str) -> TrialFailure:
        """A failure of an engine that still runs; what its log says about the cause goes first."""
        message = f"{self._name()}: {said}"
        if known := first_symptom(self._symptoms(), self._log.text()):
            symptom, line = known
            failure, suggestion = symptom.failure, symptom.suggestion
            message = f"{message}; its log says: {line}"
        excerpt = self._log.excerpt()
        suggestion = suggestion or f"see {self.log}"
        return TrialFailure(failure, self._stage, message, excerpt=excerpt, suggestion=suggestion)

    def _unknown(self) -> FailureClass:
        """The class of a failure of which no more is known."""
        return "tool" if self._serves else "startup"

    def _name(self) -> str:
        return f"the engine {self._engine.options.type}"


def start_service(
    trial: TrialRun,
    engine: Engine,
    *,
    model: Path,
    served_name: str | None = None,
    port: int | None = None,
    options: Mapping[str, Json] | None = None,
    env: Mapping[str, Json] | None = None,
    config: Mapping[str, Json] | None = None,
    prefix: str = "",
    headless: bool = False,
) -> Generator[Progress, None, Service]:
    """Start an engine in a trial and return it once it has answered a real request.

    The stages are ``deploy`` and ``health``, the log is ``engine.log`` in the trial's folder, each
    with ``prefix`` in front of it. Whoever gets the service has to stop it; one that does not come
    up, or whose start is given up by closing this generator, is stopped here.

    Args:
        trial: The trial whose run owns the engine's processes.
        engine: Which engine.
        model: Absolute folder of the checkpoint.
        served_name: Name for clients; by default the engine's option, else the folder's name.
        port: Port to demand; by default the engine's option, else one is leased.
        options: Tuned arguments, over the engine's own.
        env: Tuned environment variables, see :class:`Deployment`.
        config: Tuned entries of the engine's configuration file, see :class:`Deployment`.
        prefix: Tells several engines of one trial apart, such as ``prefill-0-``.
        headless: Start a part without an API, see :class:`Deployment`, which is returned as soon
            as it lives.

    Raises:
        TrialFailure: The engine cannot be started, ends, is late, or does not serve.
    """
    try:
        wanted = Deployment(
            model,
            served_name or engine.options.served_model_name or model.name,
            engine.host,
            port or engine.port or 0,
            options or {},
            env or {},
            config or {},
            trial.folder / f"{prefix}engine",
            trial.spec.run_id,
            headless,
        )
        service = _start(trial, engine, wanted, prefix)
    except StageError as error:
        failure, stage = error.failure, f"{prefix}deploy"
        raise TrialFailure(failure, stage, str(error), suggestion=error.suggestion) from error
    yield from service.is_there() if headless else service.become_ready()
    return service


def _start(trial: TrialRun, engine: Engine, wanted: Deployment, prefix: str) -> Service:
    """Start what is wanted; port 0 stands for one to be leased."""
    stage = f"{prefix}deploy"
    if wanted.config and not engine.configurable:
        raise StageError(
            "input",
            f"{', '.join(wanted.config)}: the engine {engine.options.type} has no configuration "
            "file that these could be written to",
            "give the parameters the position argument or env",
        )
    with ExitStack() as resources:
        lease = resources.enter_context(_lease(wanted.port or None, stage))
        deployment = replace(wanted, port=lease.ports[0])
        prepared = resources.enter_context(engine.prepared(deployment)) or ()
        launch = engine.launch(deployment)
        notes = (*prepared, *launch.notes)
        log = EngineLog(trial.folder / f"{prefix}engine.log", launch.argv, notes)
        tree = _spawn(trial, launch, log, stage, engine.orphan_grace)
        resources.callback(tree.stop, engine.stop_grace)
        return Service(engine, deployment, tree, log, resources.pop_all(), prefix, notes)


def _lease(port: int | None, stage: str) -> PortLease:
    try:
        return lease_ports(ports=() if port is None else (port,))
    except PortUnavailableError as error:
        raise TrialFailure(
            "startup",
            stage,
            str(error),
            suggestion="leave engine.port out to have a free one chosen",
        ) from error


def _spawn(
    trial: TrialRun, launch: Launch, log: EngineLog, stage: str, orphan_grace: float | None
) -> ProcessTree:
    label = f"{trial.label}-engine"
    environment = child_environment(trial.spec.run_id, label, launch.env)
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
            orphan_grace_s=orphan_grace,
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise TrialFailure(
            "input",
            stage,
            f"the engine's program {launch.argv[0]} cannot be started: {error.strerror}",
            suggestion="name the engine's own program or interpreter in engine.command",
        ) from error
