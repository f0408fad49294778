"""Candidates of a fallback search: layers in the order in which they fall back."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from searchers._contract import Outcome

Groups = list[list[str]]
"""Names that can only fall back together, the most sensitive group first."""


class FallbackOptions(BaseModel):
    """What all fallback searches may be told.

    Attributes:
        candidates: Layers from the most to the least sensitive. An item is a name, or a list of
            names that can only fall back together, such as a fused q/k/v projection. Empty: they
            are ranked by an ``analysis`` trial.
        max_failures: Failed trials after which the search ends with what it knows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    candidates: list[str | list[str]] = []
    max_failures: int = Field(3, ge=0)

    @field_validator("candidates")
    @classmethod
    def _distinct(cls, candidates: list[str | list[str]]) -> list[str | list[str]]:
        _check(grouped(candidates))
        return candidates


class NoRanking(Exception):
    """An analysis trial did not lead to candidates; the message is for the user."""


class _Ranked(BaseModel):
    """One group of a ranking, as an analysis trial reports it."""

    layers: list[str]
    score: float


_RANKING = TypeAdapter(list[_Ranked])


def grouped(candidates: Sequence[str | Sequence[str]]) -> Groups:
    """Each candidate as a group of names."""
    return [[item] if isinstance(item, str) else list(item) for item in candidates]


def ranked(outcome: Outcome) -> Groups:
    """The candidates that an analysis trial ranked. Raises :class:`NoRanking`.

    It must report ``data["ranking"]``: ``[{"layers": [name, ...], "score": number}, ...]``, the
    most sensitive first, layers of equal score in one group.
    """
    if outcome.status == "failed":
        raise NoRanking(f"the sensitivity analysis failed: {outcome.error or 'no reason given'}")
    try:
        ranking = _RANKING.validate_python(outcome.data.get("ranking"))
        groups = [list(each.layers) for each in ranking]
        _check(groups)
    except (ValidationError, ValueError) as error:
        raise NoRanking(f"the sensitivity analysis gave no usable ranking: {error}") from error
    if not groups:
        raise NoRanking(
            "the sensitivity analysis found no layer that could fall back; "
            "name candidates, or check which layers the analysis looks at"
        )
    return groups


def counted(groups: Groups) -> str:
    """How many candidates there are, in words."""
    single = all(len(group) == 1 for group in groups)
    return f"{len(groups)} {'layers' if single else 'layer groups'}"


def _check(groups: Groups) -> None:
    names = [name for group in groups for name in group]
    if not all(groups) or not all(names):
        raise ValueError("every candidate needs a name, every group at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"every layer may stand only once; repeated: {', '.join(twice)}")
