"""What an experiment may say about an evaluation by AISBench through a serving engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from trainables._tool import absolute_program
from trainables._trial import Json
from trainables.engines import engine_type
from trainables.evaluation._prechecks import precheck_type

ACCURACY = "accuracy"
PRECHECK = "precheck"
"""Name under which prechecks report, next to those of datasets."""
_OWN_ARGUMENTS = {
    "--models": "the model is what the trial made",
    "--datasets": "say it in config_name",
    "--mode": "say it in mode",
    "-m": "say it in mode",
    "--work-dir": "results belong into the trial's folder",
    "-w": "results belong into the trial's folder",
    "--config-dir": "say it in settings.config_dir",
    "--reuse": "what an earlier run answered says nothing about this model",
    "-r": "what an earlier run answered says nothing about this model",
    "--search": "it evaluates nothing",
    "-s": "it evaluates nothing",
    "--dry-run": "it evaluates nothing",
}
Mode: TypeAlias = Literal["all", "infer", "eval", "viz", "perf", "perf_viz", "judge", "infer_judge"]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _absolute(path: str) -> str:
    """Nodes and later sessions have other working folders. Empty means: not given."""
    return str(Path(path).expanduser().absolute()) if path else ""


def _foreign_arguments(arguments: list[str]) -> list[str]:
    for argument in arguments:
        name = argument.split("=", 1)[0]
        if name in _OWN_ARGUMENTS:
            raise ValueError(f"{name} cannot be given: {_OWN_ARGUMENTS[name]}")
        if "\0" in argument:
            raise ValueError("a NUL character cannot be passed to a program")
    return arguments


def _checked_engine(block: dict[str, Json]) -> dict[str, Json]:
    """The engine's block with its defaults filled in; its faults keep their paths."""
    return _resolved(block, engine_type)


def _checked_precheck(block: dict[str, Json]) -> dict[str, Json]:
    return _resolved(block, precheck_type)


def _resolved(block: dict[str, Json], find: Any) -> dict[str, Json]:
    name = block.get("type")
    if not isinstance(name, str):
        raise ValueError("has no type")
    try:
        options = find(name).Options
    except (KeyError, ImportError) as error:
        raise ValueError(str(error.args[0])) from None
    document: dict[str, Json] = options.model_validate(block).model_dump(mode="json")
    return document


_Path = Annotated[str, AfterValidator(_absolute)]
_Arguments = Annotated[list[str], AfterValidator(_foreign_arguments)]
_Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
_FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
_MetricKeys = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class ModelMeta(_Block):
    """The configuration file that tells AISBench about the served model.

    Attributes:
        directory: Where the file is written instead of the trial's folder; AISBench has to find
            it by its own search.
        subdir: Folder below the configurations of models in the trial's folder.
        base_name: First part of the file's name.
        name_suffix: Its last part; by default ``trial_<id>_<seconds since 1970>``.
        abbr: Name of the model in AISBench's output.
        attr: Kind of model to AISBench.
    """

    directory: _Path = ""
    subdir: _FileName = "vllm_api"
    base_name: _FileName = "vllm_api_general_chat"
    name_suffix: Annotated[str, Field(pattern=r"^[\w.-]*$")] = "auto"
    abbr: _FileName = "vllm-api-general-chat"
    attr: Literal["service", "local"] = "service"


class AisbenchDataset(_Block):
    """One dataset; what is left out is as in the settings.

    Attributes:
        config_name: Name of the dataset's configuration, ``NAME`` or ``NAME/VARIABLE``, of
            AISBench's own or in ``settings.config_dir``.
        mode: Mode of AISBench; empty for that of the settings.
        request_rate: Requests per second; 0 for that of the settings.
        max_out_len: Longest answer in tokens.
        returns_tool_calls: Whether the model calls tools, for datasets about that.
        api_chat_type: AISBench's client.
        chat_template_kwargs: Passed to the chat template with every request.
        extra_args: Further arguments of the command line, after those of the settings.
    """

    config_name: Annotated[str, Field(pattern=r"^\w[\w.+/-]*$")]
    mode: Literal[Mode, ""] = ""
    request_rate: NonNegativeFloat = 0.0
    max_out_len: PositiveInt | None = None
    returns_tool_calls: bool | None = None
    api_chat_type: _Identifier = "VLLMCustomAPIChat"
    chat_template_kwargs: dict[str, Json] = {}
    extra_args: _Arguments = []


class AisbenchSettings(_Block):
    """What holds for all datasets.

    Attributes:
        binary: The tool. Another program is named by ``command``.
        mode: Mode of AISBench.
        timeout: Seconds that one dataset may take.
        cleanup_model_config: Whether the model's configuration file is deleted afterwards.
        request_rate: Requests per second at most.
        pred_postprocessor: AISBench's function that prepares answers, empty for none.
        retry: Attempts per request; 0 is one attempt as well.
        batch_size: Requests under way at once.
        max_out_len: Longest answer in tokens.
        trust_remote_code: Whether AISBench may run code that comes with the tokenizer.
        generation_kwargs: Sampling parameters of every request.
        extra_args: Further arguments of the command line.
        log_dir: Folder of AISBench's logs; by default ``aisbench_logs`` in the trial's folder.
        config_dir: Folder with the user's own ``datasets/NAME.py`` (and ``summarizers``), which
            AISBench looks into before its own.
        model_meta: About the model's configuration file.
        default_metric_keys: Keys of AISBench's results that become metrics, in order of
            preference: of a dataset's result each that is there is reported as
            ``<dataset>/<key>``, and one has to be. A list for all datasets, or dataset to list;
            datasets that are not named have ``accuracy``.
    """

    binary: Literal["ais_bench"] = "ais_bench"
    mode: Mode = "all"
    timeout: PositiveFloat = 7200
    cleanup_model_config: bool = True
    request_rate: PositiveFloat = 1.0
    pred_postprocessor: _Identifier | Literal[""] | None = "extract_non_reasoning_content"
    retry: NonNegativeInt = 2
    batch_size: PositiveInt = 1
    max_out_len: PositiveInt = 512
    trust_remote_code: bool = False
    generation_kwargs: dict[str, Json] = {}
    extra_args: _Arguments = []
    log_dir: _Path = ""
    config_dir: _Path = ""
    model_meta: ModelMeta = ModelMeta()
    default_metric_keys: _MetricKeys | dict[str, _MetricKeys] = [ACCURACY]

    @field_validator("default_metric_keys", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        """One key may stand without its list."""
        if isinstance(value, dict):
            return {name: [keys] if isinstance(keys, str) else keys for name, keys in value.items()}
        return [value] if isinstance(value, str) else value


class AisbenchOptions(_Block):
    """Options of the evaluator ``aisbench``.

    Attributes:
        engine: The serving engine's block: ``type`` and its options.
        precheck: Rules that the served model has to keep before any dataset is evaluated.
        datasets: By the names that demands use, in the order of evaluation.
        command: The program, such as ``[/opt/aisbench/bin/ais_bench]``, and first arguments.
        settings: What holds for all datasets.
    """

    type: Literal["aisbench"] = "aisbench"
    engine: Annotated[dict[str, Json], AfterValidator(_checked_engine)]
    precheck: list[Annotated[dict[str, Json], AfterValidator(_checked_precheck)]] = []
    datasets: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=200)], AisbenchDataset],
        Field(min_length=1),
    ]
    command: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1),
        AfterValidator(absolute_program),
    ] = ["ais_bench"]
    settings: AisbenchSettings = AisbenchSettings()

    def metric_keys(self, dataset: str) -> list[str]:
        """Keys of a dataset's result that become metrics, in order of preference."""
        keys = self.settings.default_metric_keys
        return keys.get(dataset, [ACCURACY]) if isinstance(keys, dict) else keys
