"""Strategies as Ray Tune search algorithms.

Ray's ``Searcher`` is a developer API; this module is the only place that knows it, and its tests
hold it to the behaviour of the pinned Ray version.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ray.tune.search import Searcher

from searchers._contract import Done, Outcome, Proposal, Strategy, Wait

ToConfig: TypeAlias = Callable[[Proposal], dict[str, Any] | Outcome]
"""The config of the Ray trial that carries a proposal out; the outcome of one that cannot be."""

ToOutcome: TypeAlias = Callable[[Proposal, Mapping[str, Any] | None, bool], Outcome]
"""What a trial that ended means: (proposal, last result, whether it errored). The result is None
for a trial that errored, was stopped, or ended without a report."""

_BOUND: dict[str, TuneSearcher] = {}
_LOG = logging.getLogger(__name__)


class TuneSearcher(Searcher):
    """Lets Ray Tune carry out a strategy's proposals.

    Ray pickles its search algorithm into the experiment folder. What is pickled of this one is
    only its key; unpickling gives the searcher that is bound to the key in the process, so a
    restored Tuner works with the objects of the live driver. What the strategy knows travels in
    the searcher state that Ray saves beside it, as JSON.

    An exception of the strategy, or of the functions given with it, would make Ray drop the
    experiment, and so would a state that cannot be restored. It is kept in :attr:`fault` instead;
    no more trials are begun, and the driver decides what to do when ``Tuner.fit`` returns.

    Attributes:
        fault: The exception that ended the search, if one did.
    """

    def __init__(
        self,
        key: str,
        strategy: Strategy,
        to_config: ToConfig,
        to_outcome: ToOutcome,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.fault: Exception | None = None
        self._key = key
        self._strategy = strategy
        self._to_config = to_config
        self._to_outcome = to_outcome
        self._has_room = has_room
        self._live: dict[str, Proposal] = {}
        self._limit: int | None = None

    @classmethod
    def bind(
        cls,
        key: str,
        strategy: Strategy,
        to_config: ToConfig,
        to_outcome: ToOutcome,
        has_room: Callable[[], bool] = lambda: True,
    ) -> TuneSearcher:
        """The searcher for a run, to be given to ``TuneConfig`` or found by ``Tuner.restore``.

        Replaces what was bound to ``key`` before. Bind a fresh strategy before a restore.

        Args:
            key: Names the run in this process.
            strategy: Whose proposals become trials. Its width may change at any time.
            to_config: See :data:`ToConfig`.
            to_outcome: See :data:`ToOutcome`.
            has_room: Whether a further trial can begin beside those in flight. Where none is in
                flight it is not asked: Ray then waits for room with the trial in its hands, since
                it would wait in vain for a proposal.
        """
        searcher = cls(key, strategy, to_config, to_outcome, has_room)
        _BOUND[key] = searcher
        return searcher

    @staticmethod
    def unbind(key: str) -> None:
        """Forget the searcher of a run that is over."""
        _BOUND.pop(key, None)

    @property
    def live(self) -> Mapping[str, Proposal]:
        """Proposals in flight by Ray's trial id."""
        return dict(self._live)

    def __reduce__(self) -> tuple[Callable[[str], TuneSearcher], tuple[str]]:
        return _bound, (self._key,)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take the limit over from Ray, whose own counting loses trials over a restore."""
        self._limit = max_concurrent
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.fault is not None:
            return self._end()
        if self._limit is not None and len(self._live) >= self._limit:
            return None
        if len(self._live) >= max(self._strategy.width, 1):
            return None
        try:
            if self._live and not self._has_room():
                return None
            return self._ask(trial_id)
        except Exception as error:
            self._fail(error)
            return self._end()

    def _ask(self, trial_id: str) -> dict[str, Any] | str | None:
        while True:
            step = self._strategy.ask()
            if isinstance(step, Done):
                return self._end()
            if isinstance(step, Wait):
                if not self._live:
                    name = type(self._strategy).__name__
                    raise RuntimeError(f"strategy {name} waits although nothing is in flight")
                return None
            config = self._to_config(step)
            if not isinstance(config, Outcome):
                self._live[trial_id] = step
                return config
            self._strategy.tell(step, config)

    def _end(self) -> str | None:
        """Finish once nothing is in flight; Ray does not ask again after that."""
        return None if self._live else str(Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        proposal = self._live.pop(trial_id, None)
        if proposal is None or self.fault is not None:
            return
        try:
            self._strategy.tell(proposal, self._to_outcome(proposal, result, error))
        except Exception as fault:
            self._fail(fault)

    def save(self, checkpoint_path: str) -> None:
        live = {trial: proposal.to_json() for trial, proposal in self._live.items()}
        document: dict[str, Any] = {"live": live}
        try:
            document["strategy"] = self._strategy.state()
            text = json.dumps(document, allow_nan=False)
        except Exception as error:
            self._fail(error)
            text = json.dumps({"live": live, "fault": repr(error)})
        with Path(checkpoint_path).open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())

    def restore(self, checkpoint_path: str) -> None:
        """Continue from a file that :meth:`save` wrote.

        Raises ``ValueError`` when the file is torn or not one of ours. Ray logs that and goes on
        with an empty experiment; this searcher does not.
        """
        try:
            document = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
            live = document["live"].items()
            self._live = {trial: Proposal.from_json(proposal) for trial, proposal in live}
            self._strategy.restore(document["strategy"])
        except Exception as error:
            self._live = {}
            fault = ValueError(
                f"the searcher state {checkpoint_path} cannot be restored "
                f"({type(error).__name__}: {error}); start a fresh experiment and replay the ledger"
            )
            self._fail(fault)
            raise fault from error

    def _fail(self, error: Exception) -> None:
        if self.fault is None:
            self.fault = error
            _LOG.error("the search ends: %r", error, exc_info=error)


def _bound(key: str) -> TuneSearcher:
    if key not in _BOUND:
        raise LookupError(
            f"no searcher is bound to {key!r} in this process; call TuneSearcher.bind first"
        )
    return _BOUND[key]
