"""The ``benchmark`` block of ``vllm bench serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from trainables._tool import absolute_program
from trainables._trial import Json
from trainables.benchmarks._summary import Goodput
from trainables.engines._arguments import argument_name, argument_problems
from trainables.engines._options import Variables

_HUB = "hf"
_CHATS = {"openai-chat": "/v1/chat/completions", "openai-responses": "/v1/responses"}
_SAID_ELSEWHERE = {
    "base-url": "the trial decides which service is measured",
    "host": "the trial decides which service is measured",
    "port": "the trial decides which service is measured",
    "model": "the trial decides which model is served",
    "served-model-name": "the trial decides which model is served",
    "tokenizer": "it is that of the model that is served",
    "max-concurrency": "the load says it",
    "request-rate": "the load says it",
    "seed": "the trial says it",
    "percentile-metrics": "all are asked for",
    "metric-percentiles": "all are asked for",
    "save-result": "the result is always saved",
    "result-dir": "the result belongs into the trial's folder",
    "result-filename": "the result belongs into the trial's folder",
    "append-result": "every run has a result of its own",
    "disable-tqdm": "its output is a log",
    **dict.fromkeys(
        (
            *("backend", "endpoint", "dataset-name", "dataset-path", "num-prompts"),
            *("random-input-len", "random-output-len", "random-range-ratio", "num-warmups"),
            *("ignore-eos", "temperature", "goodput", "save-detailed"),
        ),
        "there is an option of that name beside args",
    ),
}


class VllmBenchmarkOptions(BaseModel):
    """The block.

    Attributes:
        command: vLLM's own program, ``[/opt/vllm/bin/vllm]``, or an interpreter that runs it:
            ``[/opt/vllm/bin/python, -m, vllm.entrypoints.cli.main]``.
        backend: Sort of client.
        endpoint: Path of the URL; by default the one that suits the backend.
        dataset_name: Sort of requests: ``random``, ``sharegpt``, ``custom``, ...
        dataset_path: File of the dataset; for ``hf`` a name on the hub or a folder.
        num_prompts: How many requests are sent, unless the load says so.
        random_input_len, random_output_len: Tokens, for the dataset ``random``; None: as vLLM has
            it.
        random_range_ratio: How far they vary: from ``1 - ratio`` to ``1 + ratio`` times.
        num_warmups: Requests before the first that counts. Older versions know none.
        ignore_eos: Whether answers go on to the number of tokens that was asked for.
        temperature: Of sampling; None: as the service has it.
        goodput: Bounds of ``goodput_per_s``; None: it is not reported.
        args: Further arguments: ``prefix-repetition-prefix-len: 64``. ``true`` makes a flag,
            ``false`` and ``null`` leave it out, mappings and lists become JSON.
        env_vars: Additions to the tool's environment.
        save_detailed: Whether the result tells of every request; minima and maxima need it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["vllm_benchmark"] = "vllm_benchmark"
    command: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1),
        AfterValidator(absolute_program),
    ] = ["vllm"]
    backend: Annotated[str, Field(min_length=1)] = "vllm"
    endpoint: Annotated[str, Field(pattern=r"^/\S*$")] | None = None
    dataset_name: Annotated[str, Field(min_length=1)] = "random"
    dataset_path: Annotated[str, Field(min_length=1)] | None = None
    num_prompts: PositiveInt = 128
    random_input_len: PositiveInt | None = None
    random_output_len: PositiveInt | None = None
    random_range_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    num_warmups: NonNegativeInt = 0
    ignore_eos: bool = True
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    goodput: Goodput | None = None
    args: dict[str, Json] = {}
    env_vars: Variables = {}
    save_detailed: bool = False

    @model_validator(mode="before")
    @classmethod
    def _absolute_dataset(cls, block: Json) -> Json:
        """Trials run in other folders."""
        path = block.get("dataset_path") if isinstance(block, dict) else None
        if isinstance(path, str) and path and block.get("dataset_name") != _HUB:
            return {**block, "dataset_path": str(Path(path).expanduser().absolute())}
        return block

    @property
    def path(self) -> str:
        """Path of the URL."""
        return self.endpoint or _CHATS.get(self.backend, "/v1/completions")

    @property
    def local(self) -> bool:
        """Whether the dataset needs no network."""
        return self.dataset_name != _HUB

    def workload_arguments(self) -> dict[str, Json]:
        """What of the command line decides what is asked, besides number and seed."""
        goodput = self.goodput.model_dump(exclude_none=True) if self.goodput else {}
        return {
            "backend": self.backend,
            "endpoint": self.path,
            "dataset-name": self.dataset_name,
            "dataset-path": self.dataset_path,
            "random-input-len": self.random_input_len,
            "random-output-len": self.random_output_len,
            "random-range-ratio": self.random_range_ratio,
            "num-warmups": self.num_warmups or None,
            "ignore-eos": self.ignore_eos,
            "temperature": self.temperature,
            "goodput": [
                f"{name.removesuffix('_s')}:{bound * 1000:g}" for name, bound in goodput.items()
            ]
            or None,
        }

    def argument_problems(self) -> list[tuple[str, str]]:
        """Faults of ``args`` and what they contradict, as (dotted path, message)."""
        found = [(f"args.{key}", said) for key, said in argument_problems(self.args)]
        for key in self.args:
            if why := _SAID_ELSEWHERE.get(argument_name(key)):
                found.append((f"args.{key}", f"{key} cannot be given here: {why}"))
        return found
