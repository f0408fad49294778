"""The ``benchmark`` block of AISBench's perf mode."""

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
from trainables.benchmarks._workload import resolved_workload
from trainables.engines._arguments import argument_name, argument_problems
from trainables.engines._options import Variables

MAX_OUT_LEN = 512
_SAID_ELSEWHERE = {
    "models": "say it in models",
    "datasets": "say it in datasets",
    "custom-dataset-path": "say it in custom_dataset_path",
    "num-prompts": "say it in num_prompts",
    "num-warmups": "say it in num_warmups",
    "config-dir": "say it in config_dir",
    **dict.fromkeys(("mode", "m"), "a benchmark runs in mode perf"),
    **dict.fromkeys(("work-dir", "w"), "results belong into the trial's folder"),
    **dict.fromkeys(("reuse", "r"), "what an earlier run measured says nothing about this one"),
    **dict.fromkeys(("search", "s", "dry-run"), "it measures nothing"),
    "debug": "it is always given",
}
_OF_OUR_MODEL = ("api", "ignore_eos", "temperature", "generation_kwargs", "retry")


def _absolute(path: str) -> str:
    """Trials run in other folders. Empty means: not given."""
    return str(Path(path).expanduser().absolute()) if path else ""


_Name = Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
_Path = Annotated[str, AfterValidator(_absolute)]


class AisBenchOptions(BaseModel):
    """The block. Of ``workload``, ``datasets`` and ``custom_dataset_path`` one is given.

    Attributes:
        command: The program, such as ``[/opt/aisbench/bin/ais_bench]``, and first arguments.
        models: Name of a model's configuration, of AISBench's own or in ``config_dir``; what it
            says about the service and the load is overruled. By default one is made.
        workload: What is asked, as in the benchmark ``builtin``; the random one by default.
        datasets: Name of a dataset's configuration, ``NAME`` or ``NAME/VARIABLE``, of AISBench's
            own or in ``config_dir``.
        custom_dataset_path: A ``.jsonl`` or ``.csv`` file with a ``question`` in each row.
        num_prompts: How many requests are sent at most, unless the load says so.
        num_warmups: Requests before the first that counts.
        api: ``completions`` or ``chat``.
        max_out_len: Tokens of an answer where the dataset does not say; None: as ``models`` has
            it, else 512.
        ignore_eos: Whether answers go on to the number of tokens that was asked for.
        temperature: Of sampling; None: as the service has it.
        generation_kwargs: Further keys of every request.
        retry: Attempts per request. A second one hides that the first failed.
        trust_remote_code: Whether AISBench may run code that comes with the tokenizer.
        config_dir: Folder with the user's own ``models``, ``datasets`` and ``summarizers``.
        args: Further arguments. ``true`` makes a flag, ``false`` and ``null`` leave it out.
        env_vars: Additions to the tool's environment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["ais_bench"] = "ais_bench"
    command: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1),
        AfterValidator(absolute_program),
    ] = ["ais_bench"]
    models: _Name | None = None
    workload: Annotated[dict[str, Json], AfterValidator(resolved_workload)] | None = None
    datasets: Annotated[str, Field(pattern=r"^\w[\w.+/-]*$")] | None = None
    custom_dataset_path: _Path = ""
    num_prompts: PositiveInt = 128
    num_warmups: NonNegativeInt = 1
    api: Literal["completions", "chat"] = "completions"
    max_out_len: PositiveInt | None = None
    ignore_eos: bool = True
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    generation_kwargs: dict[str, Json] = {}
    retry: PositiveInt = 1
    trust_remote_code: bool = False
    config_dir: _Path = ""
    args: dict[str, Json] = {}
    env_vars: Variables = {}

    @model_validator(mode="after")
    def _one_workload(self) -> AisBenchOptions:
        given = [
            name for name in ("workload", "datasets", "custom_dataset_path") if getattr(self, name)
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say the same; give one of them")
        if self.workload and self.workload.get("form") == "token_ids":
            raise ValueError("AISBench sends no token ids; say workload.form: text")
        return self

    @property
    def own_workload(self) -> dict[str, Json] | None:
        """The workload that is written for AISBench; None where it has its own."""
        if self.datasets or self.custom_dataset_path:
            return None
        return self.workload or resolved_workload({"type": "random"})

    @property
    def client(self) -> str:
        """AISBench's class that talks to the engine."""
        return "VLLMCustomAPIChat" if self.api == "chat" else "VLLMCustomAPI"

    def generation(self) -> dict[str, Json]:
        """Keys of every request."""
        fixed: dict[str, Json] = {"ignore_eos": True} if self.ignore_eos else {}
        if self.temperature is not None:
            fixed["temperature"] = self.temperature
        return {**fixed, **self.generation_kwargs}

    def argument_problems(self) -> list[tuple[str, str]]:
        """Faults of ``args`` and of options that are not used, as (dotted path, message)."""
        found = [(f"args.{key}", said) for key, said in argument_problems(self.args)]
        for key in self.args:
            if why := _SAID_ELSEWHERE.get(argument_name(key)):
                found.append((f"args.{key}", f"{key} cannot be given here: {why}"))
        if self.models:
            fields = type(self).model_fields
            for name in _OF_OUR_MODEL:
                if getattr(self, name) != fields[name].default:
                    found.append((name, f"is not used: the configuration {self.models} says it"))
        return found
