"""The ``benchmark`` block of the built-in benchmark, and what its client is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from trainables._trial import Json
from trainables.benchmarks._summary import Goodput
from trainables.benchmarks._workload import resolved_workload

METHOD = 1
"""Grows when the same service would get other numbers than before."""
_OURS = frozenset({"model", "prompt", "messages", "max_tokens", "stream", "stream_options"})


def _not_ours(body: dict[str, Json]) -> dict[str, Json]:
    if taken := _OURS & set(body):
        raise ValueError(f"{', '.join(sorted(taken))} cannot be given: the benchmark says it")
    return body


class BuiltinOptions(BaseModel):
    """The block.

    Attributes:
        workload: What is asked: ``type`` and the options of the workload.
        requests: How many are sent, unless the load says so.
        endpoint: ``completions`` or ``chat``.
        arrivals: In an open loop, ``poisson`` or ``constant`` gaps between requests.
        burstiness: Shape of the gamma distribution of Poisson gaps: 1 is Poisson itself, less is
            burstier, more is more even.
        ignore_eos: Whether answers go on to the number of tokens that was asked for.
        temperature: Of sampling.
        extra_body: Further keys of every request.
        warm_ups: Requests before the first that counts, of the same lengths.
        goodput: Bounds of ``goodput_per_s``; None: it is not reported.
        request_timeout: Seconds after which a request has failed.
        window_s: Seconds of a window.
        save_itl: Whether the records of requests hold every gap between tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["builtin"] = "builtin"
    workload: Annotated[dict[str, Json], AfterValidator(resolved_workload)] = Field(
        default={"type": "random"}, validate_default=True
    )
    requests: PositiveInt = 128
    endpoint: Literal["completions", "chat"] = "completions"
    arrivals: Literal["poisson", "constant"] = "poisson"
    burstiness: PositiveFloat = 1.0
    ignore_eos: bool = True
    temperature: Annotated[float, Field(ge=0)] = 0.0
    extra_body: Annotated[dict[str, Json], AfterValidator(_not_ours)] = {}
    warm_ups: NonNegativeInt = 4
    goodput: Goodput | None = None
    request_timeout: PositiveFloat = 600
    window_s: PositiveFloat = 1.0
    save_itl: bool = False

    @model_validator(mode="after")
    def _form_suits_endpoint(self) -> BuiltinOptions:
        if self.endpoint == "chat" and self.workload.get("form") == "token_ids":
            raise ValueError("a chat takes no token ids; say form: text, or endpoint: completions")
        return self

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.endpoint == "chat" else "/v1/completions"

    def body(self, served_name: str, prompt: Any, tokens: int) -> Mapping[str, Json]:
        """The body of a request for ``tokens`` tokens."""
        if self.endpoint == "chat":
            asked = {"messages": [{"role": "user", "content": prompt}]}
        else:
            asked = {"prompt": prompt}
        fixed = {"ignore_eos": True} if self.ignore_eos else {}
        return {
            "model": served_name,
            **asked,
            "max_tokens": tokens,
            "temperature": self.temperature,
            **fixed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra_body,
        }
