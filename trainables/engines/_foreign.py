"""What engines have in common that we know only from outside: how they show that they serve."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from trainables.engines._engine import Engine
from trainables.engines._options import EngineOptions, UrlPath

_STATUSES = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")


def _statuses(text: str) -> str:
    found = _STATUSES.fullmatch(text)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ValueError(f"{text!r} is no status or range of statuses of HTTP, such as 200-399")
    return text


class ForeignOptions(EngineOptions):
    """Options of engines that are known only from outside.

    Attributes:
        health_check_endpoint: Path that is asked until the engine is up.
        ready_statuses: What it then answers: one status, or a range such as ``200-499``.
        ready_line: Text in its log without which it is not up.
        models_path: Path that lists the served models in OpenAI's form; null skips the check that
            it serves the right one.
        completions_path: Path for plain completions in OpenAI's form; null skips the proof that it
            can infer, and its answer to the health check is all that is known.
    """

    health_check_endpoint: UrlPath = "/"
    ready_statuses: Annotated[str, AfterValidator(_statuses)] = "200-399"
    ready_line: Annotated[str, Field(min_length=1)] | None = None
    models_path: UrlPath | None = "/v1/models"
    completions_path: UrlPath | None = "/v1/completions"


class ForeignEngine(Engine):
    """An engine that shows by the paths of its options that it serves."""

    options: ForeignOptions

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        first, _, last = options.ready_statuses.partition("-")
        self.ready_statuses = range(int(first), int(last or first) + 1)
        if options.ready_line is not None:
            self.ready_line = re.compile(re.escape(options.ready_line))
        self.models_path = options.models_path
        self.completions_path = options.completions_path

    def unproven(self) -> tuple[str, ...]:
        """What is not proven before it is used, for readers of the log."""
        options = self.options
        if options.completions_path is not None:
            return ()
        asked = f"{self.health_path} answered {options.ready_statuses}"
        return (f"no completion is asked for: that {asked} is all that is known of its health",)
