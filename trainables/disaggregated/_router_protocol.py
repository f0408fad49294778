"""The requests of vLLM's two-step protocols, for prefill and for decode instances. Pure.

Facts: vLLM's connector interface (``kv_transfer_params``), and vLLM-Ascend's two example proxies
(``examples/disaggregated_prefill_v1``, 2026-08).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

Json: TypeAlias = Any

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
METASERVER = "/v1/metaserver"
PARAMS = "kv_transfer_params"
_BATCH = "batch_kv_transfer_params"

_ASK_TO_KEEP = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
"""Tells a prefill instance that somebody else will decode."""


def parsed(raw: bytes) -> dict[str, Json]:
    """A request's body. Raises ``ValueError``, in words for the client, when it is none."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("the body must be a JSON object")
    return document


def prefill_request(
    document: Mapping[str, Json], params: Mapping[str, Json] | None = None
) -> dict[str, Json]:
    """The request of which a prefill instance computes the prompt, and one token.

    Args:
        document: What the client asked.
        params: What a decode instance has said about where to push; None: it will pull.
    """
    return {**shortened(document), PARAMS: dict(_ASK_TO_KEEP if params is None else params)}


def shortened(document: Mapping[str, Json], *, stream: bool = False) -> dict[str, Json]:
    """The request with an answer of one token; streamed only where ``stream`` lets it be."""
    asked = dict(document)
    asked["max_tokens"] = asked["min_tokens"] = 1
    if "max_completion_tokens" in asked:
        asked["max_completion_tokens"] = 1
    if not stream:
        asked["stream"] = False
        asked.pop("stream_options", None)
    return asked


def pulling_request(raw: bytes, document: Mapping[str, Json], params: Json) -> bytes:
    """What a decode instance is asked after prefill: the client's own bytes where the prefill
    instance had nothing to say about where its KV cache is."""
    return raw if params is None else encoded({**document, PARAMS: params})


def pushed_request(document: Mapping[str, Json], metaserver: str) -> dict[str, Json]:
    """What a decode instance is asked before prefill, which it orders at ``metaserver``."""
    order = {"do_remote_decode": False, "do_remote_prefill": True, "metaserver": metaserver}
    return {**document, PARAMS: order}


def orders_of(path: str, request_id: str, document: Mapping[str, Json]) -> tuple[str, ...]:
    """The names under which a decode instance will order prefill: one for each prompt."""
    if path == CHAT:
        return (f"chatcmpl-{request_id}",)
    return tuple(f"cmpl-{request_id}-{number}" for number in range(prompts_of(document)))


def prompts_of(document: Mapping[str, Json]) -> int:
    """How many prompts a request has; a list of tokens is one."""
    prompt = document.get("prompt")
    if isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt):
        return len(prompt)
    return 1


def joined_orders(orders: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    """The parameters of the one prefill request that all orders of a request become."""
    first, *more = orders.values()
    if not more:
        return dict(first)
    return {**first, _BATCH: {name: dict(order) for name, order in orders.items()}}


def encoded(document: Mapping[str, Json]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def error_document(message: str, status: int, kind: str) -> dict[str, Json]:
    """An error as OpenAI's services tell it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def error_event(message: str, status: int, kind: str) -> bytes:
    """The same in the middle of a stream."""
    return b"data: " + encoded(error_document(message, status, kind)) + b"\n\n"
