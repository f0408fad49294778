"""Why a program died, read from its exit status and its log."""

from __future__ import annotations

import signal

import pytest

from trainables._failures import failure_of


@pytest.mark.parametrize(
    ("code", "log", "failure"),
    [
        (1, "RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; ...)",
         "out_of_memory"),
        (1, "ValueError: No available memory for the cache blocks.", "out_of_memory"),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", "out_of_memory"),
        (-signal.SIGKILL, "loading weights", "out_of_memory"),
        (1, "RuntimeError: [ERROR] HCCL function error: HcclCommInitRootInfo", "device"),
        (1, "requests: ConnectionError: Connection refused", "network"),
        (2, "usage: quantize", "tool"),
        (-signal.SIGSEGV, "", "tool"),
    ],
)  # fmt: skip
def test_class_of_a_death(code: int, log: str, failure: str) -> None:
    found, message, suggestion = failure_of("quantize", code, log)
    assert found == failure
    assert message.startswith("quantize")
    assert suggestion


def test_the_telling_line_is_quoted() -> None:
    log = "one\nRuntimeError: NPU out of memory. Tried 2 GiB\nlast"
    assert "Tried 2 GiB" in failure_of("deploy", 1, log)[1]
    assert "last" in failure_of("deploy", 3, "one\nlast\n\n")[1]
    assert "SIGSEGV" in failure_of("deploy", -11, "")[1]
