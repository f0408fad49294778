"""``config.toml`` of ``msserviceprofiler optimizer``: its tables, fields, defaults and ranges."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tuner.compat._plan import Real, Text, Whole, _no_truth
from tuner.compat.serviceparam._field import DEFAULT_MINDIE_FIELDS, TargetField

MINDIE_CONFIG = "/usr/local/Ascend/mindie/latest/mindie-service/conf/config.json"
_MOST = 1_000_000


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Positive = Annotated[Real, Field(gt=0)]
Slo = Annotated[Real, Field(gt=0, le=100)]
Penalty = Annotated[Real, Field(ge=0, le=100)]
Count = Annotated[Whole, Field(gt=0, le=1000)]
Prompts = Annotated[Whole, Field(ge=0, le=_MOST)]
Seconds = Annotated[Whole, Field(gt=0)]
Port = Annotated[Text, BeforeValidator(_text)]
Tolerance = Annotated[float, BeforeValidator(_no_truth)]
Algorithm = Literal["average", "max", "min", "p75", "p90", "slo_p90", "p99", "n"]
Schedule = Literal["exp_decay", "nonlin_mod", "lin_variation", "random"]


class Table(BaseModel):
    """Base of all tables: values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PsoOptions(Table):
    """``[pso_options]``."""

    w: Real = 1.8
    c1: Real = 2.0
    c2: Real = 2.0


class PsoStrategy(Table):
    """``[pso_strategy]``: how each coefficient changes from iteration to iteration."""

    w: Schedule = "exp_decay"
    c1: Schedule = "exp_decay"
    c2: Schedule = "exp_decay"


class DataStorage(Table):
    """``[data_storage]``.

    Attributes:
        store_dir: Folder of the results; by default ``<output>/store``.
        pso_top_k: Best points that are refined afterwards; 0: none.
    """

    store_dir: Text | None = None
    pso_top_k: Annotated[Whole, Field(ge=0)] = 3


class Communication(Table):
    """``[communication]``: files of the multi-node design, which no version uses."""

    base_path: Text | None = None
    cmd_file: Text | None = None
    res_file: Text | None = None


class LatencyModel(Table):
    """``[latency_model]``: files of the simulation mode."""

    base_path: Text | None = None
    model_path: Text | None = None
    static_file_dir: Text | None = None
    req_and_decode_file: Text | None = None
    cache_data: Text | None = None


class Mindie(Table):
    """``[mindie]``."""

    process_name: Text = "mindie, mindie-llm, mindieservice_daemon, mindie_llm"
    output: Text | None = None
    work_path: Text | None = None
    config_path: Text | None = None
    config_bak_path: Text | None = None
    command: dict[str, Any] = {}
    target_field: list[TargetField] = list(DEFAULT_MINDIE_FIELDS)


class VllmCommand(Table):
    """``[vllm.command]``."""

    host: Text = ""
    port: Port = ""
    model: Text = ""
    served_model_name: Text = ""
    others: Text = ""


class Vllm(Table):
    """``[vllm]``."""

    process_name: Text = "vllm"
    output: Text | None = None
    work_path: Text | None = None
    command: VllmCommand = VllmCommand()
    target_field: list[TargetField] = []


class MetricAlgorithm(Table):
    """Row and column of AISBench's table that a latency is read from."""

    metric: Text = "TTFT"
    algorithm: Algorithm = "average"


class PerformanceConfig(Table):
    """``performance_config``."""

    time_to_first_token: MetricAlgorithm = MetricAlgorithm(metric="TTFT")
    time_per_output_token: MetricAlgorithm = MetricAlgorithm(metric="TPOT")


class AisBenchCommand(Table):
    """``[ais_bench.command]``."""

    models: Text = ""
    datasets: Text = ""
    mode: Text = ""
    num_prompts: Prompts = 0
    work_dir: Text = ""


class AisBench(Table):
    """``[ais_bench]``."""

    process_name: Text = "ais_bench"
    output_path: Text | None = None
    work_path: Text | None = None
    command: AisBenchCommand = AisBenchCommand()
    performance_config: PerformanceConfig = PerformanceConfig()
    target_field: list[TargetField] = []
    model: Text = ""
    path: Text = ""
    host_ip: Text = ""
    host_port: Whole = 0
    max_out_len: Whole = 0
    best_concurrency_coefficient: Whole = 3
    best_concurrency_threshold: Whole = 200


class VllmBenchmarkCommand(Table):
    """``[vllm_benchmark.command]``; ``serving`` is of versions that no longer exist."""

    serving: Text = ""
    backend: Text = "vllm"
    host: Text = ""
    port: Port = ""
    model: Text = ""
    served_model_name: Text = ""
    dataset_name: Text = ""
    dataset_path: Text = ""
    num_prompts: Prompts = 0
    result_dir: Text = ""
    others: Text = ""


class VllmBenchmark(Table):
    """``[vllm_benchmark]``."""

    process_name: Text = ""
    output_path: Text | None = None
    command: VllmBenchmarkCommand = VllmBenchmarkCommand()
    performance_config: PerformanceConfig = PerformanceConfig()
    target_field: list[TargetField] = []


class Kubectl(Table):
    """``[kubectl]``: where the scripts of disaggregated deployments lie."""

    process_name: Text = ""
    kubectl_default_path: Text = ""
    kubectl_single_path: Text | None = None
    config_single_path: Text | None = None
    config_single_pd_path: Text | None = None
    config_single_pd_bak_path: Text | None = None
    config_single_bak_path: Text | None = None
    delete_path: Text | None = None
    work_path: Text | None = None
    command: dict[str, Any] = {}
    target_field: list[TargetField] = []


ErrorKind = Literal["out_of_memory", "device_error", "network_error", "io_error", "unknown"]
Pattern = Annotated[str, Field(min_length=1, max_length=1000)]


class ErrorPatterns(Table):
    """Substrings of log lines, in any case: those that end a trial, and those worth a retry."""

    fatal_patterns: dict[ErrorKind, list[Pattern]] = {}
    retryable_patterns: dict[ErrorKind, list[Pattern]] = {}


class HealthCheck(Table):
    """``[health_check]``. ``log_snippet_length``: last lines of a log that are searched."""

    log_snippet_length: Annotated[Whole, Field(gt=0)] = 50
    service_errors: ErrorPatterns = ErrorPatterns()
    benchmark_errors: ErrorPatterns = ErrorPatterns()


class Settings(Table):
    """The whole file. Defaults are those of the code, not of the shipped file."""

    output: Text = "result"
    simulator_output: Text | None = None
    n_particles: Count = 5
    iters: Count = 10
    ttft_penalty: Penalty = 3.0
    tpot_penalty: Penalty = 3.0
    success_rate_penalty: Annotated[Real, Field(ge=0, le=1000)] = 5.0
    ttft_slo: Slo = 0.5
    tpot_slo: Slo = 0.05
    success_rate_slo: Positive = 1.0
    slo_coefficient: Annotated[Real, Field(ge=0)] = 0.1
    generate_speed_target: Positive = 5000.0
    service: Literal["master", "slave"] = "master"
    sample_size: Annotated[Whole, Field(ge=0)] | None = None
    pso_options: PsoOptions | None = None
    pso_strategy: PsoStrategy | None = None
    ftol: Tolerance = float("-inf")
    ftol_iter: Annotated[Whole, Field(gt=0)] = 1
    particles_time_out: Seconds = 3600
    wait_start_time: Seconds = 1800
    mem_coefficient: Positive = 0.8
    max_fine_tune: Annotated[Whole, Field(ge=0)] = 10
    scaling_coefficient: Positive = 1.3
    step_size: Positive = 0.6
    theory_guided_enable: bool = True
    data_storage: DataStorage = DataStorage()
    communication: Communication = Communication()
    latency_model: LatencyModel = LatencyModel()
    mindie: Mindie = Mindie()
    vllm: Vllm = Vllm()
    ais_bench: AisBench = AisBench()
    vllm_benchmark: VllmBenchmark = VllmBenchmark()
    kubectl: Kubectl = Kubectl()
    health_check: HealthCheck = HealthCheck()
