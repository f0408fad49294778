"""Requests of a batch as profilers list them, and what the batch computed of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainables.latency.imports._notes import MalformedError, Notes
from trainables.latency.imports._tables import as_count, read_table
from trainables.simulation import Chunk

Framework = Literal["mindie", "vllm"]

_LONGEST_SPECULATION = 16
"""More tokens than that at once, after its prompt, and a request is being computed again."""


@dataclass(frozen=True)
class Member:
    """A request in one batch.

    Attributes:
        rid: Which.
        iteration: How many iterations it has had, its prefill being 0; None: not told.
        tokens: How many tokens of it were computed; None: not told.
    """

    rid: str
    iteration: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Content:
    """What a batch computed."""

    prefills: tuple[Chunk, ...]
    decodes: tuple[int, ...]


@dataclass(frozen=True)
class Requests:
    """Attributes:
    prompts: Request to the tokens of its prompt.
    replies: Tokens of each answer, in the order of the table.
    """

    prompts: Mapping[str, int]
    replies: tuple[int, ...]


def read_requests(path: Path, notes: Notes) -> Requests:
    """Read ``request.csv``."""
    prompts, replies = {}, []
    for row in read_table(path, notes, ("http_rid", "recv_token_size")):
        try:
            if row.has("reply_token_size"):
                replies.append(as_count(row.text("reply_token_size"), "column reply_token_size"))
            if row.has("recv_token_size"):
                tokens = as_count(row.text("recv_token_size"), "column recv_token_size")
                prompts[as_rid(row.text("http_rid"))] = tokens
        except MalformedError as error:
            notes.malformed(path, row.line, error)
    return Requests(prompts, tuple(replies))


def as_rid(value: object) -> str:
    """A request's identifier as text: 12, "12" and 12.0 are the same."""
    text = str(value).strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


def members_of(listed: Any) -> tuple[Member, ...]:
    """Requests of a ``res_list``.

    Raises ``MalformedError`` when it is none.
    """
    if not isinstance(listed, list | tuple) or not listed:
        raise MalformedError("the list of requests is empty or no list")
    members = []
    for one in listed:
        if not isinstance(one, Mapping) or "rid" not in one:
            raise MalformedError(f"a request of the batch has no rid: {str(one)[:60]}")
        told = {
            name: as_count(one[name], f"{name} of request {one['rid']}")
            for name in ("iter", "iter_size")
            if one.get(name) is not None
        }
        members.append(Member(as_rid(one["rid"]), told.get("iter"), told.get("iter_size")))
    return tuple(members)


def contents_of(
    batches: Sequence[tuple[Member, ...]],
    requests: Requests,
    framework: Framework,
    notes: Notes,
) -> list[Content | None]:
    """What each batch computed; None, with a note, where that cannot be told.

    MindIE tells the iteration: 0 computes the whole prompt, in the n-th after it the KV cache
    holds the prompt and n - 1 tokens. vLLM tells the tokens: they add up to where the request is.
    """
    told = _by_tokens if framework == "vllm" else _by_iteration
    other = _by_iteration if framework == "vllm" else _by_tokens
    found = told(batches, requests)
    if not any(isinstance(one, Content) for one in found):
        otherwise = other(batches, requests)
        if any(isinstance(one, Content) for one in otherwise):
            notes.faults.append(
                f"this looks like no profile of {framework}; it is read all the same"
            )
            found = otherwise
    for one in found:
        if isinstance(one, str):
            notes.drop(one)
    return [one if isinstance(one, Content) else None for one in found]


def _by_iteration(batches: Sequence[tuple[Member, ...]], requests: Requests) -> list[Content | str]:
    return [_at_iterations(members, requests.prompts) for members in batches]


def _at_iterations(members: tuple[Member, ...], prompts: Mapping[str, int]) -> Content | str:
    prefills, decodes = [], []
    for member in members:
        prompt = prompts.get(member.rid)
        if member.iteration is None:
            return "the profile does not tell the iteration of a request"
        if not prompt:
            return "a request of the batch is not in request.csv"
        if member.iteration == 0:
            prefills.append(Chunk(prompt))
        else:
            decodes.append(prompt + member.iteration - 1)
    return Content(tuple(prefills), tuple(decodes))


def _by_tokens(batches: Sequence[tuple[Member, ...]], requests: Requests) -> list[Content | str]:
    sizes: dict[str, list[int]] = defaultdict(list)
    for members in batches:
        for member in members:
            sizes[member.rid].append(member.tokens or 0)
    courses = {rid: iter(_course(steps, requests.prompts.get(rid))) for rid, steps in sizes.items()}
    found: list[Content | str] = []
    for members in batches:
        parts = [next(courses[member.rid]) for member in members]
        if not all(member.tokens for member in members):
            found.append("the profile does not tell the tokens of a request")
            continue
        prefills = tuple(part for part in parts if isinstance(part, Chunk))
        decodes = tuple(part for part in parts if not isinstance(part, Chunk))
        found.append(Content(prefills, decodes))
    return found


def _course(steps: Sequence[int], prompt: int | None) -> list[Chunk | int]:
    """A request's steps as chunks of its prompt, or the context of a decoded token."""
    known = prompt or steps[0]
    computed = _cached(steps, known)
    course: list[Chunk | int] = []
    for tokens in steps:
        if computed >= known and tokens > _LONGEST_SPECULATION:
            known, computed = computed, 0
        decodes = computed >= known and tokens == 1
        course.append(computed if decodes else Chunk(tokens, computed))
        computed += tokens
    return course


def _cached(steps: Sequence[int], prompt: int) -> int:
    """Tokens of the prompt that the prefix cache held: those that were never computed before the
    request began to decode."""
    computed = 0
    for tokens in steps:
        if computed >= prompt:
            break
        if computed and tokens == 1:
            return prompt - computed
        computed += tokens
    return 0
