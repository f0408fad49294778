"""Engines by the name that ``engine: {type: ...}`` of an experiment gives them."""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from trainables._program import FailureClass
from trainables._registry import Registry
from trainables._trial import Json
from trainables.engines._options import EngineOptions
from trainables.engines._shell import shell_environment


@dataclass(frozen=True)
class Deployment:
    """What one instance of an engine is to serve, and where.

    Attributes:
        model: Folder of the checkpoint.
        served_name: Name that clients use.
        host: Address to listen on, without brackets.
        port: TCP port to listen on, leased.
        options: Tuned arguments, over the engine's own.
        env: Tuned environment variables, over the engine's own. ``$NAME`` anywhere in the
            engine's arguments stands for their value.
        config: Tuned entries of the engine's configuration file, by dotted path, for engines
            that have one: ``BackendConfig.ScheduleConfig.maxBatchSize``.
        folder: Where this instance may keep files of its own; made by whoever needs it.
        run_id: The run it belongs to, for marks in files that others see.
        headless: Whether it is a further part of an instance whose API is on another node, which
            its options say all about: it then listens for no clients.
    """

    model: Path
    served_name: str
    host: str
    port: int
    options: Mapping[str, Json] = field(default_factory=dict)
    env: Mapping[str, Json] = field(default_factory=dict)
    config: Mapping[str, Json] = field(default_factory=dict)
    folder: Path = Path()
    run_id: str = ""
    headless: bool = False


@dataclass(frozen=True)
class Launch:
    """How a deployment is started.

    Attributes:
        argv: Program and arguments; a program without a slash is searched in ``PATH``.
        env: Additions to the environment.
        unset: Variables of the environment that it must not have.
        cwd: Folder it runs in; the trial's by default.
        notes: What readers of its log should know: what was corrected, what is not proven.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    cwd: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Symptom:
    """A line of an engine's log after which it will not serve any more.

    Attributes:
        failure: What sort of failure it is.
        pattern: Found in one line, in any case; what it matches begins what the user is told.
        suggestion: What the user can do.
    """

    failure: FailureClass
    pattern: str
    suggestion: str


class Engine(ABC):
    """One serving engine: how it is started, and how it shows that it serves or fails.

    Attributes:
        Options: Model of the ``engine`` block, ``type`` included.
        symptoms: What its log says when a start has failed; the earliest line that matches any
            of them names the cause.
        ready_line: Pattern of a line of the log without which the engine is not up; None for
            those that show it by answering.
        ready_statuses: What its health path answers once it is up.
        models_path: Path that lists the served models in OpenAI's form; None when there is none.
        completions_path: Path for plain completions in OpenAI's form; None when there is none, and
            then nothing proves that it can infer.
        configurable: Whether it has a configuration file that :attr:`Deployment.config` is for.
        headless: Whether it can be a part of an instance without an API, see
            :attr:`Deployment.headless`.
        kills_itself: Whether it ends a failed start with SIGKILL, which is elsewhere a sign of the
            kernel's memory killer.
        stop_grace: Seconds between the request to end and the kill.
        orphan_grace: The same once whoever started it has died; None where it needs no more than
            other programs.
    """

    Options: ClassVar[type[EngineOptions]]
    symptoms: ClassVar[tuple[Symptom, ...]] = ()
    ready_line: re.Pattern[str] | None = None
    ready_statuses: range = range(200, 201)
    models_path: str | None = "/v1/models"
    completions_path: str | None = "/v1/completions"
    configurable: ClassVar[bool] = False
    headless: ClassVar[bool] = False
    kills_itself: ClassVar[bool] = False
    stop_grace: float = 10.0
    orphan_grace: float | None = None

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def launch(self, deployment: Deployment) -> Launch:
        """The command for a deployment. Changes nothing anywhere.

        Raises ``StageError`` for a deployment that cannot be started so.
        """

    @abstractmethod
    def identity(self) -> Json:
        """What of the engine decides results: type, command, arguments, environment, versions.

        Not host, port, timeouts, and what only concerns logs.
        """

    def address(self, deployment: Deployment) -> str:
        """``http://host:port`` that clients use; empty where it is that of the deployment.

        For engines whose program only watches over what serves elsewhere.
        """
        return ""

    def prepared(self, deployment: Deployment) -> AbstractContextManager[Sequence[str] | None]:
        """Entered before an instance starts, left after it ended, whichever way.

        For engines that read configuration files, which are edited and restored here. May yield
        notes for readers of the log, and raise ``StageError`` when it cannot be done.
        """
        return nullcontext()

    def configuration(self, deployment: Deployment) -> str:
        """The text of its configuration file for a deployment; empty for engines without one.

        Changes nothing anywhere. Raises ``StageError`` as :meth:`launch` does.
        """
        return ""

    def configured(self, paths: Iterable[str]) -> dict[str, Json]:
        """What its configuration file says now at these dotted paths; without those it has not."""
        return {}

    def serves(self) -> dict[str, Json]:
        """What its own configuration says of what it serves: ``model`` (the folder on this node),
        ``name`` and ``devices``, as far as it says so. Raises ``StageError``."""
        return {}

    def deliverables(self, deployment: Deployment) -> Mapping[str, str]:
        """What somebody needs to deploy it without us: file name to text.

        ``serve.sh`` runs the engine in the foreground with the tuned arguments and environment.
        """
        return {"serve.sh": serve_script(self.launch(deployment))}

    def problems(self) -> list[tuple[str, str]]:
        """Faults as (dotted path inside the ``engine`` block, message), without starting it."""
        return []

    def versions(self) -> Mapping[str, str]:
        """Versions of the engine's packages, as far as they are known without running it."""
        return {}

    @property
    def host(self) -> str:
        """Address an instance listens on."""
        host: str = self.options.host
        return host

    @property
    def port(self) -> int | None:
        """Port an instance needs; None to have a free one leased."""
        port: int | None = self.options.port
        return port

    @property
    def startup_timeout(self) -> float:
        timeout: float = self.options.startup_timeout
        return timeout

    @property
    def health_path(self) -> str:
        path: str = self.options.health_check_endpoint
        return path


def serve_script(launch: Launch, *, before: Sequence[str] = (), without: Sequence[str] = ()) -> str:
    """A shell script that does what ``launch`` says, in the foreground.

    Args:
        before: Lines that go before its command.
        without: Variables that those lines set themselves.
    """
    env = {name: value for name, value in launch.env.items() if name not in without}
    variables, words = shell_environment(env, launch.unset)
    place = [f"cd {shlex.quote(str(launch.cwd))}"] if launch.cwd else []
    notes = [f"# {' '.join(note.split())}" for note in launch.notes]
    command = f"exec {shlex.join([*words, *launch.argv])}"
    return "\n".join(["#!/bin/sh", *notes, *variables, *before, *place, command]) + "\n"


_ENGINES: Registry[Engine] = Registry(
    "engine",
    "npu_tuner.engines",
    {
        "vllm": "trainables.engines._vllm",
        "vllm-ascend": "trainables.engines._vllm",
        "mindie": "trainables.engines._mindie",
        "mindie-k8s": "trainables.engines._mindie_k8s",
        "script": "trainables.engines._script",
        "plugin": "trainables.engines._plugin",
        "simulated": "trainables.engines._simulated",
    },
)
register_engine = _ENGINES.register
engine_types = _ENGINES.names
engine_type = _ENGINES.find
make_engine = _ENGINES.make
