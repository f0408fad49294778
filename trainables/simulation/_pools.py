"""Disaggregated serving: instances that compute prompts, instances that decode, a router in front.

The way of a request (vLLM 0.32, vllm-ascend, and MindIE differ in its options only):

* Pulled: the router gives it to a prefill instance; when its prompt is computed, to a decode
  instance, which takes blocks for it, fetches its KV cache, and decodes. The prefill instance
  keeps its blocks until they have been fetched.
* Pushed layer by layer (``Transfer.layerwise``): the decode instance has it first and takes
  blocks; then its prompt is computed, and sent while it is.

The proxies of vLLM and vllm-ascend ask the prefill instance for one token and throw it away: the
decode instance computes the last token of the prompt again (``first_token="decode"``). Others,
MindIE for one, give the client the token of the prefill instance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from trainables.simulation._machine import Instance, Machine
from trainables.simulation._pools_machines import DecodeMachine, PrefillMachine
from trainables.simulation._request import Load, Refused, Request, Served, Simulated
from trainables.simulation._simulate import Client, Route, check
from trainables.simulation._transfer import Network, Transfer

FirstToken: TypeAlias = Literal["prefill", "decode"]


def simulate_disaggregated(
    prefill: Sequence[Instance],
    decode: Sequence[Instance],
    load: Load,
    *,
    transfer: Transfer | None = None,
    first_token: FirstToken = "decode",
    route: Route = "least_loaded",
    stop: Callable[[Served], bool] | None = None,
) -> Simulated:
    """Serve a load by prefill instances and decode instances behind a router.

    Deterministic: equal arguments give equal results.

    Args:
        prefill, decode: The two pools.
        load: What is asked.
        transfer: How KV caches get from one to the other; None: in no time.
        first_token: Which of the two computes the first token that the client sees.
        route: How the router chooses in each pool.
        stop: Told every answered request, in the order in which they end; True ends the
            simulation there.

    Returns:
        ``Served.instances`` names both, ``scheduled`` and ``cached_tokens`` are those of the
        prefill instance, ``preemptions`` are summed.

    Raises:
        ValueError: A pool is empty, two instances have one name, or arrivals decrease.
    """
    for name, pool in (("prefill", prefill), ("decode", decode)):
        if not pool:
            raise ValueError(f"there is no {name} instance")
    check([*prefill, *decode], load)
    run = _Run(prefill, decode, load, transfer or Transfer(), first_token, route)
    run.until(stop)
    machines: list[Machine] = [*run.prefill, *run.decode]
    return Simulated(
        sorted(run.served, key=lambda one: one.request.number),
        run.refused,
        {machine.instance.name: machine.iterations() for machine in machines},
        {machine.instance.name: machine.instance.settings.num_blocks for machine in machines},
    )


@dataclass(slots=True)
class _Way:
    """How far a request has come: indices of its instances, None: not chosen yet."""

    request: Request
    sent: float
    prefill: int | None = None
    decode: int | None = None
    prompt: Served | None = None
    tokens: int = 0


class _Run:
    """One simulation. Instances are numbered, prefill before decode."""

    def __init__(
        self,
        prefill: Sequence[Instance],
        decode: Sequence[Instance],
        load: Load,
        transfer: Transfer,
        first_token: FirstToken,
        route: Route,
    ) -> None:
        self.prefill = [PrefillMachine(one) for one in prefill]
        self.decode = [DecodeMachine(one) for one in decode]
        self.served: list[Served] = []
        self.refused: list[Refused] = []
        self._client = Client(load)
        self._transfer = transfer
        self._network = Network(transfer)
        self._early = int(first_token == "prefill")
        self._route = route
        self._turns = [0, 0]
        self._ways: dict[int, _Way] = {}
        self._times = [math.inf] * (len(prefill) + len(decode))

    def until(self, stop: Callable[[Served], bool] | None) -> None:
        """Go on until all is served, or ``stop`` says so."""
        while True:
            due, flow, step = self._client.due(), self._network.next_time(), min(self._times)
            if (now := min(due, flow, step)) == math.inf:
                return
            if flow <= now:
                self._deliver(now)
            elif due <= now:
                self._arrive(now)
            else:
                before = len(self.served)
                self._step(self._times.index(step), now, due, flow)
                if stop and any(stop(one) for one in self.served[before:]):
                    return

    def _step(self, chosen: int, now: float, due: float, flow: float) -> None:
        count = len(self.prefill)
        if chosen < count:
            for one in self.prefill[chosen].step(math.inf):
                self._prefilled(one, now)
        else:
            machine = self.decode[chosen - count]
            for one in machine.step(self._horizon(chosen, due, flow)):
                self._finish(self._ways.pop(one.request.number), one)
            for request, tokens in machine.take_reserved():
                self._reserved(self._ways[request.number], tokens, now)
        self._touch(chosen)

    def _horizon(self, chosen: int, due: float, flow: float) -> float:
        """Until when nothing reaches a decode instance from outside."""
        finish = min(machine.next_finish() for machine in self.prefill)
        idle = math.inf in self._times[: len(self.prefill)]
        answers = self._client.waits_for_answers
        found = min(flow, finish)
        if idle or answers or self._transfer.layerwise:
            found = min(found, due)
        for number, machine in enumerate(self.decode, start=len(self.prefill)):
            if number != chosen and (answers or machine.scheduler.asks):
                found = min(found, self._times[number])
        return found

    def _arrive(self, now: float) -> None:
        request = self._client.send()
        way = _Way(request, now)
        if (reason := self._refusal(request)) is not None:
            self.refused.append(Refused(request, now, reason))
            self._client.answered(now)
            return
        self._ways[request.number] = way
        if self._transfer.layerwise and not self._ends_early(request):
            self._send_to_decode(way, now)
        else:
            self._send_to_prefill(way, now)

    def _refusal(self, request: Request) -> str | None:
        """Why a pool has no instance that could do its part."""
        prompt = replace(request, output_tokens=1)
        first = [machine.refusal(prompt) for machine in self.prefill]
        if all(reason is not None for reason in first):
            return first[0]
        if self._ends_early(request):
            return None
        second = [machine.refusal(request) for machine in self.decode]
        return second[0] if all(reason is not None for reason in second) else None

    def _ends_early(self, request: Request) -> bool:
        """Whether no decode instance is needed."""
        return request.output_tokens <= self._early

    def _choose(self, pool: int, request: Request) -> int:
        """The least loaded instance of a pool that can do its part, of equals the one whose turn
        it is."""
        machines: Sequence[Machine] = self.decode if pool else self.prefill
        turn, count = self._turns[pool], len(machines)
        order = [(turn + number) % count for number in range(count)]
        able = [one for one in order if machines[one].refusal(request) is None]
        one_after_another = self._route == "round_robin"
        chosen = able[0] if one_after_another else min(able, key=lambda one: machines[one].load)
        self._turns[pool] = (chosen if one_after_another else turn) + 1
        return chosen

    def _send_to_prefill(self, way: _Way, now: float) -> None:
        prompt = replace(way.request, output_tokens=1)
        way.prefill = self._choose(0, prompt)
        self.prefill[way.prefill].submit(prompt, now)
        self._touch(way.prefill)

    def _send_to_decode(self, way: _Way, now: float) -> None:
        way.decode = self._choose(1, way.request)
        self.decode[way.decode].submit_rest(way.request, now, self._early)
        self._touch(len(self.prefill) + way.decode)

    def _prefilled(self, prompt: Served, now: float) -> None:
        """A prompt is computed."""
        number = prompt.request.number
        way = self._ways[number]
        assert way.prefill is not None
        machine = self.prefill[way.prefill]
        way.prompt = prompt
        if self._ends_early(way.request):
            machine.free(number, now)
            del self._ways[number]
            self._answer(replace(prompt, request=way.request, sent=way.sent))
        elif self._transfer.layerwise:
            left = self._transfer.left(way.tokens, *machine.share(number))
            self._send(way, left, now)
        else:
            self._send_to_decode(way, now + machine.instance.host.delivery)

    def _reserved(self, way: _Way, tokens: int, now: float) -> None:
        """A request has its blocks on the decode instance."""
        way.tokens = tokens
        if self._transfer.layerwise:
            self._send_to_prefill(way, now)
        else:
            self._send(way, self._transfer.left(tokens, 0.0, 0.0), now)

    def _send(self, way: _Way, size: float, now: float) -> None:
        assert way.prefill is not None and way.decode is not None
        self._network.start(way.request.number, way.prefill, way.decode, size, now)

    def _deliver(self, now: float) -> None:
        """KV caches have arrived."""
        for number in self._network.step():
            way = self._ways[number]
            assert way.prefill is not None and way.decode is not None
            self.prefill[way.prefill].free(number, now)
            self.decode[way.decode].load_prompt(number, now)
            self._touch(way.prefill)
            self._touch(len(self.prefill) + way.decode)

    def _finish(self, way: _Way, rest: Served) -> None:
        """The last token of a request has come from the decode instance."""
        prompt = way.prompt
        assert prompt is not None
        first, gaps, end = rest.first, rest.gaps, rest.end
        if self._early:
            first = prompt.first
            later = np.maximum(rest.first + np.concatenate(([0.0], np.cumsum(gaps))), first)
            gaps, end = np.diff(later, prepend=first), max(end, first)
        self._answer(
            Served(
                way.request,
                way.sent,
                prompt.scheduled,
                first,
                end,
                gaps,
                prompt.cached_tokens,
                prompt.preemptions + rest.preemptions,
                prompt.instances + rest.instances,
                prompt.end,
            )
        )

    def _answer(self, served: Served) -> None:
        self.served.append(served)
        self._client.answered(served.end)

    def _touch(self, number: int) -> None:
        """An instance's next time may have changed."""
        count = len(self.prefill)
        machine = self.prefill[number] if number < count else self.decode[number - count]
        self._times[number] = machine.next_time()
