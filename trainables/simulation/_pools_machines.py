"""The two sorts of instances of disaggregated serving."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from trainables.simulation._machine import Instance, Machine
from trainables.simulation._pools_scheduler import DecodeScheduler
from trainables.simulation._request import Request
from trainables.simulation._sequence import Sequence


class PrefillMachine(Machine):
    """Computes prompts and one token of each; keeps their blocks until :meth:`free`."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self._held: dict[int, Sequence] = {}

    def free(self, number: int, at: float) -> None:
        """The KV cache of a request is not needed here any more."""
        self.scheduler.free(self._held.pop(number))
        self.wake(at)

    def next_finish(self) -> float:
        """No prompt is done before that time."""
        for flying in self._under_way:
            if flying.finished:
                return flying.end
        return max(self.next_time(), self._device_free)

    def share(self, number: int) -> tuple[float, float]:
        """How a computed prompt was prefilled: seconds, and its share of the tokens meanwhile."""
        sequence = self._held[number]
        last = sequence.tokens[0]
        assert isinstance(last, int) and sequence.scheduled is not None
        log = self.log
        first = min(bisect_left(log.start, sequence.scheduled), last)
        tokens = sum(log.prefill_tokens[first : last + 1])
        own = sequence.request.input_tokens - sequence.cached
        return log.end[last] - log.start[first], min(1.0, own / tokens)

    def _release(self, sequence: Sequence) -> None:
        self.scheduler.leave(sequence)
        self._held[sequence.request.number] = sequence


class DecodeMachine(Machine):
    """Decodes requests whose prompt is computed elsewhere."""

    scheduler: DecodeScheduler

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self.scheduler = DecodeScheduler(instance.settings)
        self._loading: dict[int, Sequence] = {}

    def submit_rest(self, request: Request, sent: float, generated: int) -> None:
        """Decode a request of which so many tokens, 0 or 1, are generated elsewhere."""
        sequence = Sequence(request, sent, self._arrived)
        sequence.generated = generated
        sequence.known += generated
        self._arrived += 1
        at = sent + self.instance.host.admission
        late = bool(self._incoming) and self._incoming[-1][0] > at
        self._incoming.append((at, sequence))
        if late:
            self._incoming = deque(sorted(self._incoming, key=lambda one: one[0]))

    def take_reserved(self) -> list[tuple[Request, int]]:
        """Requests that got their blocks, and how many tokens have to be transferred for each."""
        taken = self.scheduler.reserved
        self.scheduler.reserved = []
        for sequence in taken:
            self._loading[sequence.request.number] = sequence
        return [(one.request, one.request.input_tokens - one.computed) for one in taken]

    def load_prompt(self, number: int, at: float) -> None:
        """The KV cache of a request is here; the token that follows it is computed here."""
        sequence = self._loading.pop(number)
        self.scheduler.load(sequence, sequence.known - 1)
        self.wake(at)
