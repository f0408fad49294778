"""What the winner gains over the baseline, and whether that is more than noise. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from trainables import figure

_SE = "_se"
_SURE = 2.0
"""Standard errors of the difference beyond which it is taken for real, about 95 %."""


def gain_note(
    ranking: tuple[str, int], winner: Mapping[str, float], baseline: Mapping[str, float]
) -> str | None:
    """One sentence that compares winner and baseline by the metric that ranks.

    ``ranking`` is a metric with 1 where large is good and -1 where small is. Standard errors are
    taken from ``<metric>_se``; without them on both sides nothing is claimed about noise. None
    when one of the two has no value.
    """
    name, sign = ranking
    if name not in winner or name not in baseline or not baseline[name]:
        return None
    difference = sign * (winner[name] - baseline[name])
    share = 100 * difference / abs(baseline[name])
    said = f"{name}: {figure(winner[name])} against {figure(baseline[name])} of the baseline"
    errors = [document.get(f"{name}{_SE}") for document in (winner, baseline)]
    if errors[0] is None or errors[1] is None:
        return f"{said}, {share:+.1f} % (single runs, so noise is not known)"
    spread = _SURE * math.hypot(errors[0], errors[1])
    margin = 100 * spread / abs(baseline[name])
    if abs(difference) <= spread:
        return f"{said}: no significant gain ({share:+.1f} %, noise ±{margin:.1f} %)"
    return f"{said}, {share:+.1f} % (±{margin:.1f} %)"
