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
    "WAIT",
    "Auto",
    "BinaryFallback",
    "Bound",
    "CoordinateAscent",
    "Done",
    "Goal",
    "GridSearch",
    "Json",
    "OptunaSearch",
    "Outcome",
    "Parameter",
    "ParticleSwarm",
    "PointStrategy",
    "Proposal",
    "RandomSearch",
    "Space",
    "StandingHigh",
    "StandingHighWithExperience",
    "Strategy",
    "Verdict",
    "Wait",
    "make_strategy",
    "register_strategy",
    "strategy_options",
    "strategy_types",
]
