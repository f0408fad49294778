"""What a dead program's exit status and last words say about why it died."""

from __future__ import annotations

import re
import signal

from trainables._program import FailureClass

_PATTERNS: tuple[tuple[FailureClass, str, str], ...] = (
    (
        "out_of_memory",
        r"out of memory|MemoryError|Cannot allocate memory|No available memory for the cache"
        r"|larger than the maximum number of tokens that can be stored in KV cache"
        r"|DefaultCPUAllocator: can't allocate|std::bad_alloc",
        "give the trial more memory, or ask less of it",
    ),
    (
        "device",
        r"HCCL|ACL(?:_ERROR| error)|aclrt|EZ9999|EL0004|EI0006|CUDA error|NPU function error"
        r"|device (?:is )?(?:not available|busy)",
        "check the accelerator with npu-smi, and its driver log",
    ),
    (
        "network",
        r"Connection refused|Connection reset|Name or service not known|No route to host"
        r"|Network is unreachable|MaxRetryError|ConnectTimeout",
        "check that the named service is up and reachable from the trial's node",
    ),
)


def failure_of(stage: str, code: int, excerpt: str) -> tuple[FailureClass, str, str]:
    """Class, message and suggestion for a program that ended without a word of its own.

    ``code`` is the exit status, negative for the number of the signal that killed it. A kill by
    SIGKILL that nobody here sent is nearly always the kernel's memory killer.
    """
    for failure, pattern, suggestion in _PATTERNS:
        if match := re.search(pattern, excerpt, re.IGNORECASE):
            line = excerpt[excerpt.rfind("\n", 0, match.start()) + 1 :].split("\n", 1)[0]
            return failure, f"{stage} ended with {_ending(code)}: {line.strip()}", suggestion
    if code == -signal.SIGKILL:
        return (
            "out_of_memory",
            f"{stage} was killed by SIGKILL, most likely by the kernel's memory killer",
            "see dmesg on the node; give the trial more memory, or ask less of it",
        )
    last = next((line for line in reversed(excerpt.splitlines()) if line.strip()), "")
    said = f"; its last words: {last.strip()}" if last else ""
    return "tool", f"{stage} ended with {_ending(code)}{said}", "see the stage's log"


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
