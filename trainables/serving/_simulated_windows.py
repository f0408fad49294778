"""What a simulated run looks like while it goes on."""

from __future__ import annotations

import numpy as np

from trainables.benchmarks import Window
from trainables.simulation import Simulated


def windows_of(simulated: Simulated, seconds: float) -> list[Window]:
    """What the windows of a run look like, each so many seconds long but for the last."""
    served = sorted(simulated.served, key=lambda one: one.end)
    if not served:
        return []
    sent = np.sort([one.sent for one in served])
    ends = np.array([one.end for one in served])
    refused = np.sort([one.sent for one in simulated.refused])
    order = np.argsort([one.first for one in served], kind="stable")
    firsts = np.array([served[index].first for index in order])
    arrivals = [one.first + np.concatenate(([0.0], np.cumsum(one.gaps))) for one in served]
    begin = float(sent[0])
    edges = begin + seconds * np.arange(int((ends[-1] - begin) // seconds) + 2)
    edges[-1] = max(float(ends[-1]), edges[-2])
    tokens, _ = np.histogram(np.concatenate(arrivals), bins=edges)
    ended = np.searchsorted(ends, edges, side="right")
    answered = np.searchsorted(firsts, edges, side="right")
    failed = np.searchsorted(refused, edges, side="right")
    started = np.searchsorted(sent, edges, side="right")
    ended[0] = answered[0] = failed[0] = 0
    return [
        Window(
            begin=float(edges[index] - begin),
            end=float(edges[index + 1] - begin),
            completed=int(ended[index + 1] - ended[index]),
            failed=int(failed[index + 1] - failed[index]),
            output_tokens=int(tokens[index]),
            running=int(started[index + 1] - ended[index + 1]),
            ttft_s=[served[one].ttft for one in order[answered[index] : answered[index + 1]]],
            tpot_s=[
                one.tpot for one in served[ended[index] : ended[index + 1]] if one.tpot is not None
            ],
        )
        for index in range(len(edges) - 1)
    ]
