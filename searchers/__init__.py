"""Where to look next: pure ask/tell strategies, and the adapter that makes them Ray searchers."""

from searchers._auto import Auto
from searchers._binary_fallback import BinaryFallback
from searchers._contract import (
    WAIT,
    Bound,
    Done,
    Goal,
    Json,
    Outcome,
    Proposal,
    Strategy,
    Verdict,
    Wait,
)
from searchers._coordinate_ascent import CoordinateAscent
from searchers._experience import StandingHighWithExperience
from searchers._optuna import OptunaSearch
from searchers._particle_swarm import ParticleSwarm
from searchers._pd_split import PdSplit
from searchers._pd_splits import (
    ROLES,
    Pool,
    Rates,
    Role,
    Shape,
    Split,
    all_splits,
    decode_rate,
    matched_rate,
    prefill_rate,
)
from searchers._pd_splits_ranking import Judged, Limit, Ranked, best_split
from searchers._points import GridSearch, PointStrategy, RandomSearch
from searchers._registry import (
    make_strategy,
    register_strategy,
    strategy_options,
    strategy_types,
)
from searchers._space import Parameter, Space
from searchers._standing_high import StandingHigh

__all__ = [
    "ROLES",
    "WAIT",
    "Auto",
    "BinaryFallback",
    "Bound",
    "CoordinateAscent",
    "Done",
    "Goal",
    "GridSearch",
    "Json",
    "Judged",
    "Limit",
    "OptunaSearch",
    "Outcome",
    "Parameter",
    "ParticleSwarm",
    "PdSplit",
    "PointStrategy",
    "Pool",
    "Proposal",
    "RandomSearch",
    "Ranked",
    "Rates",
    "Role",
    "Shape",
    "Space",
    "Split",
    "StandingHigh",
    "StandingHighWithExperience",
    "Strategy",
    "Verdict",
    "Wait",
    "all_splits",
    "best_split",
    "decode_rate",
    "make_strategy",
    "matched_rate",
    "prefill_rate",
    "register_strategy",
    "strategy_options",
    "strategy_types",
]
