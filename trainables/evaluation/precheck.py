"""Stage program: ask a served model the questions of all prechecks.

Request::

    {"url": "http://127.0.0.1:1234", "model": served name, "rules": [{"type": ..., ...}, ...]}

Result::

    {"passed": true | false, "endpoint": "chat" | "completions", "seconds": 1.2,
     "rules": [{"type", "passed"} or {"type", "passed": false, "message", "reply", "reason"}, ...]}

The first rule that fails is the last one asked. A question that gets no reply ends the program as
a failure of class network or timeout.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from pydantic import ValidationError

from trainables._program import StageError, run_program
from trainables.evaluation._chat import Chat
from trainables.evaluation._prechecks import make_precheck


def precheck(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out a request document. Raises ``StageError``."""
    try:
        rules = [make_precheck(block) for block in request["rules"]]
    except (ValidationError, KeyError, ImportError) as error:
        raise StageError("input", f"the prechecks are wrong: {error}") from error
    started = time.monotonic()
    chat = Chat(request["url"], request["model"])
    found: list[dict[str, Any]] = []
    try:
        for rule in rules:
            limits = {"max_tokens": rule.options.max_tokens, "timeout": rule.options.timeout}
            fault = rule.find_fault(partial(chat.ask, **limits))
            outcome = {"type": rule.options.type, "passed": fault is None}
            found.append(outcome if fault is None else outcome | asdict(fault))
            print(*(f"{key}: {value}" for key, value in found[-1].items()), sep="\n", flush=True)
            if fault is not None:
                break
    finally:
        chat.close()
    return {
        "passed": all(outcome["passed"] for outcome in found),
        "endpoint": chat.endpoint,
        "seconds": round(time.monotonic() - started, 3),
        "rules": found,
    }


if __name__ == "__main__":
    run_program(precheck)
