"""Looks after the nodes of a run while it is under way, and tells people of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cluster import Connection, Placement, write_json
from searchers import Proposal
from tuner._campaign import Campaign
from tuner._nodes import Nodes
from tuner._nodes_record import NodesRecord
from tuner._pace import Pace
from tuner._view import RunView
from tuner.experiment import Experiment, Size

_SECONDS = 5.0
"""How often nodes are looked for that joined or left."""


class NodesWatch:
    """Width and waiting trials of a run, from the nodes that there are.

    Args:
        connection: To the cluster.
        view, campaign: Of the run; told how many trials there is room for.
        nodes: What is asked about trials.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        connection: Connection,
        view: RunView,
        campaign: Campaign,
        nodes: Nodes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._view = view
        self._campaign = campaign
        self._nodes = nodes
        self._pace = Pace(_SECONDS, clock=clock)
        self._look()

    def tick(self) -> None:
        """Call often."""
        if self._pace.due():
            self._look()

    def _look(self) -> None:
        with self._pace.measured():
            self._nodes.renew(self._connection.nodes())
        self._campaign.width = self._view.width = self._nodes.width
        for identity, said in self._nodes.waiting().items():
            if (running := self._view.running.get(identity)) is not None:
                running.note = said


def nodes_of(
    experiment: Experiment,
    first: Iterable[object],
    file: Path,
    run_id: str,
    say: Callable[[str, bool], None],
    write: Callable[[Path, Any], None] = write_json,
) -> Nodes:
    """The nodes of a run, not yet looked at.

    Args:
        experiment: Whose trials they hold.
        first: What is proposed first, as far as it is proposals.
        file: Where is kept what a run learns about nodes.
        run_id: Whose record is continued.
        say, write: See :class:`Nodes`.
    """
    limit = experiment.budget.concurrent
    asked = [*first, experiment.search.strategy().ask()]
    known = experiment.sizes(step for step in asked if isinstance(step, Proposal))
    usual = Placement((experiment.cluster.bundle(1),))
    return Nodes(
        experiment.cluster,
        known or [Size(usual, "candidate", {})],
        limit=None if limit == "auto" else limit,
        record=NodesRecord.load(file, run_id),
        file=file,
        say=say,
        write=write,
    )
