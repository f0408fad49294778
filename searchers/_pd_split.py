"""``pd_split``: how to share devices out between prefill, decode and mixed instances.

1. Each shape is rated alone in each role, its parameters tuned by a strategy of their own.
2. Whole splits are ranked by matched rates and the best are measured. Each measured one corrects
   what is expected of the others (:mod:`searchers._pd_split_belief`), so the next is the one that
   is best by all that is known. The search ends when none could beat the best that was measured.

Ranking by matched rates is the rule of msmodeling's ``throughput_optimizer``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from searchers._contract import WAIT, Done, Json, Outcome, Proposal, Strategy, Wait
from searchers._flight import Flight
from searchers._pd_split_account import account, conclusion
from searchers._pd_split_belief import agreement, hopeless
from searchers._pd_split_options import (
    PdSplitOptions,
    candidates,
    inner_strategy,
    left_out_notes,
    role_spaces,
)
from searchers._pd_split_stage import Rated, Stage, role_rate
from searchers._pd_split_wholes import Key, Tried, Whole, Wholes, instances, keys, name_of
from searchers._pd_splits import ROLES, Role, Split
from searchers._registry import register_strategy
from searchers._space import Space

_KINDS: Mapping[Role, str] = {"prefill": "prefill", "decode": "decode", "mixed": "candidate"}
"""A mixed instance alone is a whole split."""


class _Rank(NamedTuple):
    """Sorts candidates that satisfy; the earlier one wins a tie."""

    objective: float
    rate: float
    earlier: int


@register_strategy("pd_split", PdSplitOptions)
class PdSplit(Strategy):
    """See the module.

    Proposals have the parameters ``{ROLE_instances, ROLE_shape, ROLE.NAME...}`` of the roles that
    they have instances of. Kinds ``prefill`` and ``decode`` are one instance alone; their metrics
    have to tell a rate, see :func:`searchers._pd_split_stage.role_rate`. One mixed instance alone
    is a ``candidate``. Mixed instances are rated alone only where there are several shapes of them
    or parameters to tune, for the whole pool is measured in any case.

    A shape whose trials fail in a role is not used in it; shapes that are ``misfits`` are never
    proposed together, nor is one alone that has no other to go with. Splits with one that breaks
    its limits alone come after all others. With ``top`` of 2 and more, there is a split of either
    kind among the first two. A failed split does not count.

    The rates are requests per second. Where something else is maximised, it decides which measured
    split is the best, and the rates decide which are measured.
    """

    def __init__(self, options: PdSplitOptions, *, space: Space | None, seed: int) -> None:
        self._options = options
        self._splits, self._left_out = candidates(options)
        spaces = role_spaces(space, self._splits, left_out_notes(self._left_out))
        self._stages: dict[Key, Stage] = {}
        for number, key in enumerate(_staged(self._splits, spaces)):
            inner = None
            if key[1] in spaces:
                inner = inner_strategy(options, spaces[key[1]], seed + number)
            self._stages[key] = Stage(key[1], key[0], inner, options.stage_trials)
        self._wholes = Wholes(options, self._splits, self._stages.keys())
        self._flight = Flight()
        self._believed: dict[Key, float] = {}
        self._best: Proposal | None = None
        # Nothing is worth a measurement until more is told: a cheap WAIT. A twin finds out again.
        self._settled = False

    def believe(self, points: Sequence[tuple[Mapping[str, Json], Mapping[str, float]]]) -> None:
        """Of points that are one instance alone: shapes that are hopeless by these are not rated,
        unless all others of their role fail."""
        for point, metrics in points:
            roles: list[Role] = [role for role in ROLES if f"{role}_instances" in point]
            if len(roles) != 1 or point[f"{roles[0]}_instances"] != 1:
                continue
            key = (point.get(f"{roles[0]}_shape", ""), roles[0])
            if key in self._stages:
                rate = role_rate(roles[0], metrics, self._options.output_tokens) or 0.0
                self._believed[key] = max(rate, self._believed.get(key, 0.0))

    def trust(self) -> float | None:
        if not self._believed:
            return None
        return agreement(self._believed, {key: one.rate for key, one in self._rated().items()})

    def ask(self) -> Proposal | Wait | Done:
        if self._flight and len(self._flight) >= self.width:
            return WAIT
        for stages in self._rounds():
            for stage in stages:
                wanted = stage.ask(self.goal, self.width)
                if wanted is not None:
                    return self._rate_alone(stage, wanted)
            if any(stage.pending for stage in stages):
                return WAIT
        rated = self._rated()
        if not self._settled:
            found = self._wholes.next(rated, self._flight.asked, self._flying())
            if found is not None:
                return self._measure(*found)
            self._settled = True
        if self._flight:
            return WAIT
        left_out = left_out_notes(self._left_out)
        return conclusion(self._best, self._wholes, self._stages, rated, left_out)

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        landed = self._flight.land(proposal)
        if landed is None:
            return
        self._settled = False
        if landed.kind == "candidate" and outcome.status == "measured":
            self._learn(landed, outcome)
        for stage in self._stages.values():
            if landed.number in stage.pending:
                stage.tell(landed.number, outcome, self.goal, self._options.output_tokens)
                return
        if outcome.status == "failed":
            self._wholes.failed[name_of(landed.parameters)] = outcome.error or "it is not known why"

    def best(self) -> Proposal | None:
        return self._best

    def remaining(self) -> int | None:
        flying = self._flying()
        spent = self._wholes.spent(self._wholes.possible(self._rated()), flying)
        left = max(min(self._options.top, len(self._splits)) - spent, 0)
        if spent or self._wholes.failed:
            return left + len(self._flight)
        alone = sum(stage.remaining() for stage in next(self._rounds()))
        return left + max(alone, len(self._flight))

    def most(self) -> int | None:
        wholes = min(self._options.top, len(self._splits))
        return wholes + sum(stage.most() for stage in self._stages.values())

    def account(self) -> dict[str, Json]:
        told = account(self._options, self._wholes, self._stages, self._rated())
        return {**told, "left_out": dict(self._left_out)}

    def state(self) -> dict[str, Json]:
        return {
            "flight": self._flight.state(),
            "stages": [stage.state() for stage in self._stages.values()],
            "wholes": self._wholes.state(),
            "believed": [[*key, rate] for key, rate in self._believed.items()],
            "best": None if self._best is None else self._best.to_json(),
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self._settled = False
        self._flight.restore(state["flight"])
        for stage, document in zip(self._stages.values(), state["stages"], strict=True):
            stage.restore(document)
        self._wholes.restore(state["wholes"])
        self._believed = {(shape, role): rate for shape, role, rate in state["believed"]}
        best = state["best"]
        self._best = None if best is None else Proposal.from_json(best)

    def _rounds(self) -> Iterator[list[Stage]]:
        """Stages that are worth a trial; then, of roles that are without a rate after those, one
        after the other of the rest, the one that is believed to be fastest first."""
        poor = hopeless(self._splits, self._believed)
        yield [stage for key, stage in self._stages.items() if key not in poor]
        for key in sorted(poor, key=lambda key: (-self._believed[key], key)):
            if self._stages[key].begun or key[1] not in {role for _, role in self._rated()}:
                yield [self._stages[key]]

    def _rated(self) -> dict[Key, Rated]:
        return {key: stage.best for key, stage in self._stages.items() if stage.best is not None}

    def _flying(self) -> set[str]:
        """Candidates in flight, by name of their parameters."""
        flying = self._flight.proposals.values()
        return {name_of(one.parameters) for one in flying if one.kind == "candidate"}

    def _rate_alone(self, stage: Stage, wanted: Proposal) -> Proposal:
        said = f"one {stage.shape} {stage.role} instance alone"
        proposal = self._flight.launch(
            {**instances(stage.role, stage.shape, 1), **wanted.parameters},
            kind=_KINDS[stage.role],
            why=f"{said}: {wanted.why}" if wanted.why else said,
            labels={**wanted.labels, "role": stage.role, "shape": stage.shape},
        )
        stage.pending[proposal.number] = wanted
        return proposal

    def _measure(self, whole: Whole, expected: float | None) -> Proposal:
        said = "" if expected is None else f", {expected:.4g} requests/s expected"
        labels = {"split": str(whole.split), "matched": whole.matched, "expected": expected}
        return self._flight.launch(whole.parameters, why=f"{whole.split}{said}", labels=labels)

    def _learn(self, proposal: Proposal, outcome: Outcome) -> None:
        tried = Tried.of(outcome, self.goal)
        self._wholes.tried[name_of(proposal.parameters)] = tried
        if tried.satisfied and (
            self._best is None or self._rank(proposal) > self._rank(self._best)
        ):
            self._best = proposal

    def _rank(self, proposal: Proposal) -> _Rank:
        tried = self._wholes.tried[name_of(proposal.parameters)]
        objective = -math.inf if tried.objective is None else tried.objective
        return _Rank(objective, tried.measured or 0.0, -proposal.number)


def _staged(splits: Sequence[Split], spaces: Mapping[Role, Space]) -> list[Key]:
    """What is rated alone, prefill first."""
    found = list(dict.fromkeys(key for split in splits for key in keys(split)))
    mixed = [key for key in found if key[1] == "mixed"]
    if len(mixed) == 1 and "mixed" not in spaces:
        found.remove(mixed[0])
    return sorted(found, key=lambda key: ROLES.index(key[1]))
