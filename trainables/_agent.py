"""What a member of a trial's crew does on its node: it runs one engine.

Its methods take and return JSON and never wait long, except :meth:`Agent.stop`: the engine is
started and watched by a thread, so that its death is noticed while nobody asks.
"""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import psutil

from cluster import PortUnavailableError, ProcessesRemainError
from trainables._blocks import model_ready
from trainables._program import describe_error
from trainables._staging import local_model
from trainables._trial import POLL_SECONDS, Json, Progress, TrialFailure, TrialRun, TrialSpec
from trainables.disaggregated._transfer_ports import lease_transfer_ports
from trainables.engines import Engine, Service, make_engine, start_service
from trainables.engines._options import private_host

_STOP_BOUND_S = 40.0
"""Beyond the time the engine is given: what a process tree takes to be ended by force."""
_LOOPBACK = "127.0.0.1"
_METHODS = frozenset({"reserve", "start", "poll", "stop"})


@dataclass
class _State:
    """What is known of the engine; ``status`` is ``idle``, ``starting``, ``serving``, ``failed`` or
    ``stopped``."""

    status: str = "idle"
    stage: str = ""
    note: str = ""
    base_url: str | None = None
    port: int = 0
    served_name: str | None = None
    log: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    failure: Mapping[str, str] | None = None


class Agent:
    """One engine on this node.

    Args:
        address: IP address of the node.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._host = _LOOPBACK
        self._taken = range(0)
        self._leases = ExitStack()
        self._runner: _Runner | None = None

    def answer(self, method: str, arguments: Sequence[Json]) -> dict[str, Json]:
        """Call a method: ``{"value"}``, or ``{"failure": {class, stage, message, ...}}``."""
        try:
            if method not in _METHODS:
                raise ValueError(f"an agent has no method {method!r}")
            return {"value": getattr(self, method)(*arguments)}
        except TrialFailure as failure:
            return {"failure": failure.to_json()}
        except Exception as error:
            return {"failure": _described(error, method)}

    def reserve(
        self,
        ports: int = 0,
        taken: Sequence[int] = (0, 0),
        near: bool = True,
        interface: str | None = None,
    ) -> dict[str, Json]:
        """Lease further ports on this node, neighbours of each other, until :meth:`stop`; and
        decide at which address the engine will listen.

        Args:
            ports: How many.
            taken: Those from the first number up to the second are not to be leased, nor is the
                engine to listen at one of them.
            near: Whether all who talk to the engine are on this node: it then listens on the
                loopback address, else on the node's.
            interface: Whose address is to be taken for the node's.

        Returns: ``address`` of the node, ``interface`` (the one that has it; None if none has),
        ``host`` where the engine listens, ``ports``.

        Raises ``TrialFailure`` when there are no such ports, or no such interface, or when others
        than this network's hosts could reach the address and nobody has named its interface.
        """
        address = self._address if interface is None else _address(interface)
        if not near and interface is None:
            _check_private(address)
        leased: tuple[int, ...] = ()
        if ports:
            try:
                lease = lease_transfer_ports(ports, range(*taken))
            except PortUnavailableError as error:
                raise TrialFailure("startup", "deploy", str(error)) from error
            leased = self._leases.enter_context(lease).ports
        self._host = _LOOPBACK if near else address
        self._taken = range(*taken)
        return {
            "address": address,
            "interface": interface or _interface(address),
            "host": self._host,
            "ports": list(leased),
        }

    def start(self, request: Mapping[str, Json]) -> None:
        """Begin to start an engine; :meth:`poll` tells what comes of it.

        Args:
            request: ``spec`` (a :class:`TrialSpec` whose folder is that of the engine, and whose
                context says whether the model is copied to this node), ``engine`` (its block),
                ``model`` (folder or ``builtin:`` name), ``served_name``, ``options``, ``env``,
                ``config`` and ``headless`` as in :class:`trainables.engines.Deployment`.
        """
        if self._runner is not None:
            raise RuntimeError("the agent has an engine already")
        engine = make_engine(request["engine"])
        engine.options = engine.options.model_copy(update={"host": self._host})
        self._runner = _Runner(engine, request, self._taken)

    def poll(self, wait: float) -> dict[str, Json]:
        """What is known of the engine, as soon as it is new, after ``wait`` seconds at the latest.

        Returns: ``status`` (``idle``, ``starting``, ``serving``, ``failed``, ``stopped``),
        ``stage``, ``note``; once it serves ``base_url``, ``port``, ``served_name``, ``log``,
        ``seconds``, ``notes``, ``versions``; once it failed ``failure``. An engine that ended
        although it served has failed. A headless one serves as soon as it lives, without
        ``base_url`` and ``port``.
        """
        if self._runner is None:
            return vars(_State())
        return self._runner.poll(wait)

    def stop(self) -> None:
        """End the engine and give the ports back. May be repeated.

        Raises ``TrialFailure`` when processes remain.
        """
        try:
            if self._runner is not None:
                self._runner.stop()
        finally:
            self._runner = None
            self._leases.close()


class _Runner:
    """The thread that starts and watches one engine."""

    def __init__(self, engine: Engine, request: Mapping[str, Json], taken: range) -> None:
        self._engine = engine
        self._request = request
        self._taken = taken
        self._state = _State("starting", "deploy")
        self._news = threading.Condition()
        self._is_news = True
        self._ends = threading.Event()
        self._remaining: TrialFailure | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def poll(self, wait: float) -> dict[str, Json]:
        with self._news:
            self._news.wait_for(lambda: self._is_news, wait)
            self._is_news = False
            return dict(vars(self._state))

    def stop(self) -> None:
        bound = self._engine.stop_grace + _STOP_BOUND_S
        self._ends.set()
        self._thread.join(bound)
        if self._thread.is_alive():
            said = f"the engine did not end within {bound:g} s"
            raise TrialFailure("tool", "stop", said, suggestion="look at the node's processes")
        if self._remaining is not None:
            raise self._remaining

    def _run(self) -> None:
        try:
            with ExitStack() as held:
                service = self._started(held)
                while service is not None and not self._ends.wait(POLL_SECONDS):
                    service.check()
        except TrialFailure as failure:
            self._tell(status="failed", failure=failure.to_json())
        except ProcessesRemainError as error:
            self._remaining = TrialFailure("tool", "stop", str(error))
            self._tell(status="failed", failure=self._remaining.to_json())
        except Exception as error:
            traceback.print_exc()
            self._tell(status="failed", failure=_described(error, self._state.stage))
        else:
            self._tell(status="stopped")

    def _started(self, held: ExitStack) -> Service | None:
        """The engine once it serves; None when it was given up before."""
        steps = self._steps()
        held.callback(steps.close)
        while not self._ends.is_set():
            try:
                progress = next(steps)
            except StopIteration as end:
                service: Service = held.enter_context(end.value)
                listens = not service.deployment.headless
                self._tell(
                    status="serving",
                    stage="health",
                    note="",
                    base_url=service.base_url if listens else None,
                    port=service.deployment.port if listens else 0,
                    served_name=service.served_name,
                    log=str(service.log),
                    seconds=service.seconds,
                    notes=service.notes,
                    versions=dict(self._engine.versions()),
                )
                return service
            self._tell(stage=progress.stage, note=progress.note)
        return None

    def _steps(self) -> Generator[Progress, None, Service]:
        request = self._request
        trial = TrialRun(TrialSpec.from_json(request["spec"]))
        trial.folder.mkdir(parents=True, exist_ok=True)
        yield from model_ready(trial, request["model"])
        model = yield from local_model(trial, request["model"])
        return (
            yield from start_service(
                trial,
                self._engine,
                model=model,
                served_name=request["served_name"],
                port=_port(self._taken),
                options=request["options"],
                env=request["env"],
                config=request["config"],
                headless=request.get("headless", False),
            )
        )

    def _tell(self, **changes: Any) -> None:
        with self._news:
            changed = any(getattr(self._state, name) != value for name, value in changes.items())
            for name, value in changes.items():
                setattr(self._state, name, value)
            if changed:
                self._is_news = True
                self._news.notify_all()


def _described(error: Exception, stage: str) -> dict[str, str]:
    return {**describe_error(error), "stage": stage, "excerpt": ""}


def _port(taken: range) -> int | None:
    """A free port outside ``taken``, which whoever starts the engine leases at once; None: any."""
    if not taken:
        return None
    try:
        with lease_transfer_ports(1, taken) as lease:
            return lease.ports[0]
    except PortUnavailableError as error:
        raise TrialFailure("startup", "deploy", str(error)) from error


def _check_private(address: str) -> None:
    try:
        private_host(address)
    except ValueError as error:
        suggestion = "say trial.interface: NAME to have engines listen on that network"
        message = f"engines would answer everybody who reaches the node: {error}"
        raise TrialFailure("input", "deploy", message, suggestion=suggestion) from error


def _address(interface: str) -> str:
    """The address of a network interface of this node, IPv4 before IPv6."""
    found = psutil.net_if_addrs().get(interface, [])
    for family in (socket.AF_INET, socket.AF_INET6):
        for one in found:
            if one.family == family:
                return one.address
    known = ", ".join(psutil.net_if_addrs())
    message = f"the node has no network interface {interface} with an address; it has {known}"
    raise TrialFailure("input", "deploy", message, suggestion="see trial.interface")


def _interface(address: str) -> str | None:
    """The network interface of this node that has an address."""
    for name, found in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in found):
            return name
    return None
