"""The link between the instances of one split: what each needs for it on its node, and proof that
KV caches came through it.

Where nothing is transferred it is empty, but for a decode instance that is measured alone: its KV
caches are dummies, and that they are used is proven in the same way.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType

from trainables._program import StageError
from trainables._trial import Json, Progress, TrialFailure, TrialRun
from trainables.disaggregated._alone import with_dummies
from trainables.disaggregated._fleet import Fleet
from trainables.disaggregated._front import Front
from trainables.disaggregated._options import DECODE
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._proof import Uncounted, Unproven, aside, transferred_tokens
from trainables.disaggregated._span import Head, on_node
from trainables.disaggregated._supervision import supervised, timed
from trainables.disaggregated._transfer import Flow, Transfer, Where

STAGE = "transfer"

_ANSWER_S = 120.0
_DUMMIES = "prompts are not computed: their KV cache is filled with dummy values"


@dataclass(frozen=True)
class Proof:
    """What is known of KV caches that came from elsewhere.

    Attributes:
        data: ``transferred_tokens`` of each receiver, where they are counted.
        notes: For people.
    """

    data: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Link:
    """The link of one trial. Leaving its context removes the KV caches that it left on disk.

    Args:
        trial: In whose folder those are.
        split: What is linked.
        transfer: That of the experiment, which ``split`` may have no use for.
    """

    def __init__(self, trial: TrialRun, split: Plan, transfer: Transfer) -> None:
        self._trial, self._split = trial, split
        self._transfer = transfer
        self._folder = trial.folder / STAGE
        self._dummies = trial.spec.kind == DECODE

    @property
    def transfers(self) -> bool:
        """Whether instances get KV caches from each other."""
        return self._split.transfer is not None

    @property
    def flow(self) -> Flow:
        """Whom a request meets first."""
        return self._transfer.flow if self.transfers else "prefill_first"

    @property
    def taken(self) -> range:
        """Ports at which nothing of the trial may listen, whether it transfers itself or not:
        instances of other trials on its nodes do."""
        return self._transfer.reserved

    def start(self, fleet: Fleet, model: str) -> Generator[Progress, None, None]:
        """Start all instances, each with what it needs for the link on its node."""
        if self.transfers:
            transfer = self._transfer
            yield from fleet.start(model, self._joined, transfer.ports, taken=self.taken)
        else:
            yield from fleet.start(model, self._alone, taken=self.taken)

    def prove(
        self, fleet: Fleet, base_url: str, front: Front | None = None
    ) -> Generator[Progress, None, Proof]:
        """Ask until KV caches have come from elsewhere, where any are to come.

        Args:
            base_url: Who is asked.

        Raises ``TrialFailure`` when they have not.
        """
        if not (self.transfers or self._dummies):
            return Proof()
        work = partial(
            transferred_tokens,
            base_url,
            self._split.served_name,
            [one for one in fleet.instances if one.role == DECODE],
            self._transfer.transferred,
            _ANSWER_S,
        )
        notes = [_DUMMIES] if self._dummies else []
        with timed(self._trial, STAGE):
            try:
                steps = aside(work, Progress(STAGE, "asking until KV caches have moved"))
                tokens = yield from supervised(steps, fleet, front)
            except Uncounted as error:
                return Proof({}, (*notes, f"KV transfer not proven: {error}"))
            except Unproven as error:
                raise TrialFailure(
                    "tool",
                    STAGE,
                    f"no KV cache came to the decode instances: {error}",
                    suggestion="see trial.transfer, and what the instances' engine.log say of it",
                ) from error
        idle = [name for name, count in tokens.items() if not count]
        if idle:
            notes.append(f"no question was passed on to {', '.join(idle)} before the benchmark")
        return Proof({"transferred_tokens": tokens}, tuple(notes))

    def __enter__(self) -> Link:
        self._folder.mkdir(exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _joined(self, instance: Instance, there: Mapping[str, Json], head: Head) -> Instance:
        """An instance with what its transfer and its other parts need on its node."""
        interface = self._interface(there)
        where = Where(self._split, there["address"], there["ports"], interface, str(self._folder))
        try:
            addition = self._transfer.settings(instance, where)
        except StageError as error:
            raise TrialFailure(
                error.failure, "deploy", str(error), suggestion=error.suggestion
            ) from error
        joined = replace(
            instance,
            args={**addition.args, **instance.args},
            env={**addition.env, **instance.env},
        )
        return on_node(self._split, joined, head, interface, there["address"])

    def _alone(self, instance: Instance, there: Mapping[str, Json], head: Head) -> Instance:
        alone = with_dummies(instance) if self._dummies else instance
        return on_node(self._split, alone, head, self._interface(there), there["address"])

    def _interface(self, there: Mapping[str, Json]) -> str:
        return self._split.interface or there["interface"] or ""
