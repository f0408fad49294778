"""The server of a trial, from its start to the end of its last process."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from cluster import PortLease, PortUnavailableError, lease_ports, port_owners
from trainables._trial import POLL_SECONDS, Progress, TrialFailure, TrialRun
from trainables.engines._engine import Deployment, Symptom
from trainables.engines._log import EngineLog, death
from trainables.engines._proof import Proof, Refused
from trainables.script._command import StartCommand, spawn
from trainables.script._options import ScriptTrialOptions
from trainables.script._record import Record

PORT, START, EVALUATE = "port", "start", "evaluate"
_FREE_PORT = "leave trial.port out to have a free one leased, where the command takes one"
_SYMPTOMS = (
    Symptom(
        "startup",
        r"[^\n]*(?:address already in use|EADDRINUSE)",
        f"another program took the port; {_FREE_PORT}",
    ),
)


def pause(stage: str, seconds: float, note: str = "") -> Generator[Progress, None, None]:
    """Let time go by, in steps after which the trial can be cancelled."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        yield Progress(stage, note)
        time.sleep(min(left, POLL_SECONDS))


def leased(options: ScriptTrialOptions) -> Generator[Progress, None, PortLease]:
    """The trial's port. Another trial that has it is waited for until its end, anything else as
    long as the options say.

    Raises :class:`TrialFailure` of class ``startup`` when it stays taken.
    """
    begun = time.monotonic()
    wanted = () if options.port is None else (options.port,)
    looks = options.port_busy_retries + 1
    look = 0
    while True:
        try:
            return lease_ports(ports=wanted)
        except PortUnavailableError as error:
            taken = error
        if taken.leased:
            yield from pause(PORT, POLL_SECONDS, str(taken))
            continue
        look += 1
        if look >= looks:
            break
        yield from pause(PORT, options.port_busy_wait, f"{taken} (look {look} of {looks})")
    seconds = time.monotonic() - begun
    said = f"{taken} ({looks} looks in {seconds:.1f} s)"
    raise TrialFailure("startup", PORT, said, suggestion=_FREE_PORT)


class _Readiness(Proof):
    """A proof that remembers the status of the last answer."""

    status: int | None = None

    def _request(self, method: str, path: str, **more: Any) -> Any:
        response = super()._request(method, path, **more)
        if not isinstance(response, str):
            self.status = response.status_code
        return response


class Server:
    """What the start command runs. Leaving its context ends all its processes.

    Attributes:
        deployment: Where it serves, and with what.
    """

    def __init__(
        self,
        trial: TrialRun,
        options: ScriptTrialOptions,
        port: int,
        record: Record,
    ) -> None:
        """Start it. Raises :class:`TrialFailure` or ``StageError`` when that cannot be done."""
        self._engine = StartCommand(options)
        self._record = record
        self._grace = options.stop_grace
        self._stage = START
        deployment = Deployment(trial.folder, "", options.host, port, run_id=trial.spec.run_id)
        self.deployment = replace(deployment, env=trial.spec.parameters)
        launch = self._engine.launch(self.deployment)
        self._log = EngineLog(trial.folder / record.server_log, launch.argv)
        self._begun = time.monotonic()
        self._tree = spawn(trial, launch, self._log.file, stage=START, key="trial.start")

    def become_ready(self) -> Generator[Progress, None, None]:
        """Yield until it serves on its port, and nobody else does.

        Raises :class:`TrialFailure` when it ends, is late, or somebody else has the port.
        """
        timeout = self._engine.startup_timeout
        proof = _Readiness(self._engine, self.deployment, self._tree, self._log, timeout=timeout)
        try:
            yield Progress(START, proof.waiting)
            while not proof.done:
                proof.wait(POLL_SECONDS / 2)
                self._note(proof)
                self.check()
                if not proof.done and self.elapsed >= timeout:
                    raise self._lateness(proof.waiting)
                yield Progress(START, proof.waiting)
            if proof.error is not None:
                raise self._refusal(proof.error)
        except BaseException:
            self.stop()  # which also ends a request that is under way
            raise
        finally:
            proof.halt()
        self._record.health["said"] = "ready"
        self._record.phase = "eval"
        self._stage = EVALUATE

    def check(self, patience: float = 0.0) -> None:
        """Raise :class:`TrialFailure` if it has ended, or does within ``patience`` seconds."""
        code = self._tree.wait(patience)
        if code is None:
            return
        self._record.status, self._record.exit_code = "crashed", code
        starting = self._stage == START
        end = death(
            _SYMPTOMS,
            self._log,
            what="the start command",
            stage=self._stage,
            code=code,
            otherwise="startup" if starting else "tool",
        )
        suggestion = end.suggestion
        if code == 0:
            suggestion = "it has to stay in the foreground: end the script with exec, or with wait"
        when = "before it served" if starting else "while it was evaluated"
        said = f"{end} ({self.elapsed:.1f} s after its start, {when})"
        raise TrialFailure(
            end.failure, self._stage, said, excerpt=end.excerpt, suggestion=suggestion
        )

    def keep_port(self) -> Generator[Progress, None, None]:
        """Raise :class:`TrialFailure` if somebody else serves on its port as well."""
        first = self._strangers()
        if not first:
            return
        # One that ended between the looks at sockets and at processes is no stranger.
        yield from pause(self._stage, POLL_SECONDS)
        self.check()
        if both := first & self._strangers():
            who = ", ".join("of another user" if pid is None else str(pid) for pid in both)
            port = self.deployment.port
            said = f"port {port} is also served by process {who}, which is not of this trial"
            raise self._failure("tool", said, _FREE_PORT)

    def stop(self) -> None:
        """End all its processes. May be repeated."""
        self._tree.stop(self._grace)

    @property
    def elapsed(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._begun

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _note(self, proof: _Readiness) -> None:
        self._record.startup_s = round(self.elapsed, 3)
        self._record.health = {"status": proof.status, "said": proof.waiting}

    def _strangers(self) -> set[int | None]:
        return port_owners(self.deployment.port) - self._tree.pids()

    def _lateness(self, waiting: str) -> TrialFailure:
        self._record.status = "timeout"
        said = f"the start command did not serve within {self.elapsed:.1f} s: {waiting}"
        return self._failure("timeout", said, f"raise trial.ready.timeout, or see {self._log.file}")

    def _refusal(self, error: Exception) -> TrialFailure:
        if not isinstance(error, Refused):
            raise error
        said = f"the start command: {error} ({self.elapsed:.1f} s after its start)"
        return self._failure("startup", said, _FREE_PORT)

    def _failure(self, failure: Any, said: str, suggestion: str) -> TrialFailure:
        excerpt = self._log.excerpt()
        return TrialFailure(failure, self._stage, said, excerpt=excerpt, suggestion=suggestion)
