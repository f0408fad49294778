"""Where to look next: pure ask/tell strategies, and the adapter that makes them Ray Tune searchers."""

from searchers._contract import WAIT, Done, Json, Outcome, Proposal, Strategy, Verdict, Wait

__all__ = ["WAIT", "Done", "Json", "Outcome", "Proposal", "Strategy", "Verdict", "Wait"]
