"""What the log of a dead engine says about the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.engines import engine_type
from trainables.engines._log import COMMON_SYMPTOMS, EngineLog, death, first_symptom
from trainables.engines._vllm import VllmAscendEngine

SYMPTOMS = (*VllmAscendEngine.symptoms, *COMMON_SYMPTOMS)
PREFIX = "(EngineCore pid=71) ERROR 11-24 16:20:01 [core.py:866] "


@pytest.mark.parametrize(
    ("line", "failure"),
    [
        ("RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB", "out_of_memory"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", "out_of_memory"),
        ("ValueError: No available memory for the cache blocks. Try increasing", "out_of_memory"),
        ("ValueError: To serve at least one request with the models's max seq len (40960), 5 GiB "
         "KV cache is needed", "out_of_memory"),
        ("ValueError: To serve at least one request with the model's maximum sequence length "
         "(512)", "out_of_memory"),
        ("ValueError: The model's max seq len (32768) is larger than the maximum number of tokens "
         "that can be stored in KV cache (2048)", "out_of_memory"),
        ("ValueError: Free memory on device (2.1/60.9 GiB) on startup is less than desired GPU",
         "out_of_memory"),
        ("RuntimeError: Worker failed with error 'Available memory on node 0 (11.83/13.71 GiB) on "
         "kv cache allocation is less than requested memory for kv (64.0 GiB).'", "out_of_memory"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate "
         "memory", "out_of_memory"),
        ("EL0004: [PID: 1] Failed to allocate memory.", "out_of_memory"),
        ("EI0006: [PID: 1] Getting socket times out.", "device"),
        ("EL0005: [PID: 1] The resources are busy.", "device"),
        ("EZ9999: Inner Error!", "device"),
        ("RuntimeError: ACL stream synchronize failed, error code:507018", "device"),
        ("ImportError: libhccl.so: cannot open shared object file", "device"),
        ("RuntimeError: Failed to infer device type", "device"),
        ("api_server.py: error: unrecognized arguments: --num-scheduler-steps", "input"),
        ("api_server.py: error: argument --max-model-len: invalid int value: 'x'", "input"),
        ("  Value error, max_num_batched_tokens (16) is smaller than max_model_len (512). "
         "[type=value_error, input_value=ArgsKwargs]", "input"),
        ("ValueError: Model architectures ['XForCausalLM'] are not supported for now.", "input"),
        ("/opt/bin/python: No module named vllm", "input"),
        ("/opt/bin/python: Error while finding module specification for "
         "'vllm.entrypoints.openai.api_server' (ModuleNotFoundError: No module named 'vllm')",
         "input"),
        ("ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): "
         "address already in use", "startup"),
        ("OSError: [Errno 98] Address already in use", "startup"),
        ("OSError: [Errno 99] Cannot assign requested address", "input"),
    ],
)  # fmt: skip
def test_symptoms(line: str, failure: str) -> None:
    found = first_symptom(SYMPTOMS, f"INFO starting\n{PREFIX}{line}\nTraceback\nRuntimeError: late")
    assert found is not None
    symptom, quoted = found
    assert symptom.failure == failure
    assert symptom.suggestion
    assert quoted
    assert quoted in PREFIX + line
    assert "[type=" not in quoted


@pytest.mark.parametrize(
    "line",
    [
        "INFO HCCL buffer size is 200 MB",
        "WARNING [cpu.py:88] Environment variable VLLM_CPU_KVCACHE_SPACE is not set",
        "INFO torch_npu is loaded, 0 device errors",
        "INFO: 127.0.0.1:1 - GET /v1/models HTTP/1.1 200 OK",
        "WARNING Failed to import from vllm._C: ModuleNotFoundError: No module named 'vllm._C'",
        "INFO Available KV cache memory: 3.2 GiB",
    ],
)
def test_what_healthy_engines_say_is_no_symptom(line: str) -> None:
    assert first_symptom(SYMPTOMS, line) is None


@pytest.fixture
def log(tmp_path: Path) -> EngineLog:
    return EngineLog(tmp_path / "engine.log", ["vllm", "serve", "/a b"])


def dies(log: EngineLog, text: str, code: int = 1) -> tuple[str, str, str]:
    with log.file.open("a") as stream:
        stream.write(text)
    failure = death(
        SYMPTOMS, log, what="the engine", stage="deploy", code=code, otherwise="startup"
    )
    return failure.failure, str(failure), failure.excerpt


def test_the_cause_is_quoted_and_not_its_consequence(log: EngineLog) -> None:
    lines = [
        f"{PREFIX}Traceback (most recent call last):",
        f"{PREFIX}KeyError: 'layers.0.mlp.weight_scale'",
        "(APIServer pid=1) Traceback (most recent call last):",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    failure, message, excerpt = dies(log, "\n".join(lines))
    assert failure == "startup"
    assert message.endswith("exit code 1: KeyError: 'layers.0.mlp.weight_scale'")
    assert excerpt.splitlines() == lines


def test_a_process_that_ended_without_a_word_is_told_by_the_others(log: EngineLog) -> None:
    said = "EngineDeadError: EngineCore encountered an issue. See stack trace for the root cause."
    text = f"(APIServer pid=1) vllm.v1.{said}\r\nINFO:     Shutting down\r\n"
    failure, message, excerpt = dies(log, text, 0)
    assert failure == "startup"
    assert message.endswith(f"exit code 0: vllm.v1.{said}")
    assert excerpt.splitlines()[-1] == "INFO:     Shutting down"


def test_the_earliest_symptom_is_the_cause_however_much_follows(log: EngineLog) -> None:
    text = "RuntimeError: NPU out of memory\nEI0006: time out\n" + "at line\n" * 5000
    failure, message, excerpt = dies(log, text)
    assert failure == "out_of_memory"
    assert message == "the engine ended with exit code 1: RuntimeError: NPU out of memory"
    assert len(excerpt.splitlines()) == 20


def test_without_a_word_the_exit_tells(log: EngineLog) -> None:
    assert dies(log, "")[0] == "startup"
    assert dies(log, "", -9)[0] == "out_of_memory"
    assert "SIGILL" in dies(log, "", -4)[1]


def test_colours_and_progress_bars_are_no_obstacle(log: EngineLog) -> None:
    text = "load 10%\rload 20%\r\x1b[31mValueError: \x1b[0mNo available memory for the cache"
    assert dies(log, f"{text} blocks\n")[1].endswith("No available memory for the cache blocks")


def test_the_command_is_in_the_log_as_one_would_type_it(log: EngineLog) -> None:
    assert log.file.read_text().endswith("vllm serve '/a b'\n")
    assert log.text() == ""


def test_vllm_without_the_plug_in_knows_its_own_symptoms() -> None:
    symptoms = engine_type("vllm").symptoms
    assert set(symptoms) < set(SYMPTOMS)
