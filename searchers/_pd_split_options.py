"""Options of ``pd_split``, and what follows from them before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from searchers._contract import Json, Strategy
from searchers._pd_splits import ROLES, Role, Shape, Split, all_splits
from searchers._registry import make_strategy, strategy_options
from searchers._space import Space


class ShapeOptions(BaseModel):
    """One sort of instance.

    Attributes:
        devices: Of one instance: tensor x pipeline x data parallel size.
        roles: What it may be used for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    devices: int = Field(1, ge=1)
    roles: list[Role] = list(ROLES)


class Misfit(BaseModel):
    """Shapes that are of no use for one split: of its prefill and its decode instances, or of its
    mixed ones.

    Attributes:
        prefill, decode, mixed: Names of shapes; those that there are not are passed over.
        why: For people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    prefill: str | None = None
    decode: str | None = None
    mixed: str | None = None
    why: str = Field(min_length=1)

    @model_validator(mode="after")
    def _is_a_split(self) -> Misfit:
        if self.roles not in ({"prefill", "decode"}, {"mixed"}):
            raise ValueError("name shapes for prefill and decode, or one for mixed")
        return self

    @property
    def roles(self) -> set[str]:
        return {role for role in ROLES if getattr(self, role) is not None}

    def concerns(self, split: Split) -> bool:
        named = {role: pool.shape.name for role, pool in split.pools.items()}
        return named == {role: getattr(self, role) for role in self.roles}


class Candidates(NamedTuple):
    """All splits to choose from.

    Attributes:
        left_out: Shapes that no split has together, in words, and why.
    """

    splits: list[Split]
    left_out: Mapping[str, str]


class PdSplitOptions(BaseModel):
    """Options of ``pd_split``.

    Attributes:
        devices: Accelerators in total.
        shapes: The sorts of instances, by name; left out in an experiment whose trial knows them.
        misfits: Shapes that are of no use together; left out likewise.
        output_tokens: Mean tokens of an answer; None: as the decode trials report them.
        top: Whole splits measured at most.
        mixed: Whether instances that do both are among the candidates.
        inner: Strategy that tunes the parameters of one instance alone: ``type`` and its options.
        stage_trials: Trials of each shape in each role that has parameters.
        gain: Share of the best by which another split has to be expected to improve it, to be
            measured.
        max_failures: Failed whole splits after which the search ends with what it knows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    devices: int = Field(ge=1)
    shapes: dict[str, ShapeOptions] = {}
    misfits: list[Misfit] = []
    output_tokens: float | None = Field(None, ge=1)
    top: int = Field(5, ge=1)
    mixed: bool = True
    inner: dict[str, Json] = {"type": "auto"}
    stage_trials: int = Field(8, ge=1)
    gain: float = Field(0.01, ge=0)
    max_failures: int = Field(3, ge=0)


def candidates(options: PdSplitOptions) -> Candidates:
    """All splits to choose from. Raises ``ValueError`` when there is none."""
    if not options.shapes:
        raise ValueError("pd_split needs shapes: name the sorts of instances and their devices")
    shapes = [
        Shape(name, one.devices, frozenset(one.roles)) for name, one in options.shapes.items()
    ]
    found = all_splits(shapes, options.devices)
    found = [split for split in found if split.disaggregated or options.mixed]
    if not found:
        raise ValueError(
            f"no split fits {options.devices} devices: neither a prefill and a decode instance "
            f"together{', nor a mixed one' if options.mixed else ''}; there are {_said(options)}"
        )
    fitting: list[Split] = []
    left_out: dict[str, str] = {}
    for split in found:
        misfit = next((one for one in options.misfits if one.concerns(split)), None)
        if misfit is None:
            fitting.append(split)
        else:
            left_out[_shapes_of(split)] = misfit.why
    if not fitting:
        raise ValueError("; ".join(["no split can work", *left_out_notes(left_out)]))
    return Candidates(fitting, left_out)


def left_out_notes(left_out: Mapping[str, str]) -> list[str]:
    """What no split has, each reason once."""
    reasons = dict.fromkeys(left_out.values())
    return [
        f"no split has {' or '.join(name for name, why in left_out.items() if why == reason)}: "
        f"{reason}"
        for reason in reasons
    ]


def role_spaces(
    space: Space | None, splits: Sequence[Split], notes: Sequence[str] = ()
) -> Mapping[Role, Space]:
    """The part of a space that belongs to each role; its names begin with the role and a dot.

    Args:
        notes: Why there are no other splits.

    Raises:
        ValueError: A name does not, or no split has instances of its role, or a parameter is
            derived from one of another role.
    """
    if space is None:
        return {}
    used = [role for role in ROLES if any(role in split.pools for split in splits)]
    strays = [name for name in space.names if name.partition(".")[0] not in used]
    if strays:
        prefixes = ", ".join(f"{role}.NAME" for role in used)
        said = f"pd_split tunes each role alone, so parameters are called {prefixes}"
        raise ValueError("; ".join([said, f"not {', '.join(strays)}", *notes]))
    found: dict[Role, Space] = {}
    for role in used:
        mine = {name: one for name, one in space.root.items() if name.startswith(f"{role}.")}
        try:
            if mine:
                found[role] = Space.model_validate(mine)
        except ValidationError as error:
            said = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
            raise ValueError(
                f"parameters of {role} may only be derived from each other: {said}"
            ) from None
    return found


def inner_strategy(options: PdSplitOptions, space: Space, seed: int) -> Strategy:
    """A fresh strategy for one role's space. Raises ``ValueError`` when it cannot be had."""
    block = dict(options.inner)
    kind = block.pop("type", None)
    try:
        known = strategy_options(kind) if isinstance(kind, str) else None
    except (KeyError, ImportError) as error:
        raise ValueError(f"inner.type: {error.args[0]}") from None
    if known is None:
        raise ValueError("inner.type is required: the strategy that tunes one instance")
    if "trials" in known.model_fields and not {"trials", "iterations"} & block.keys():
        block["trials"] = options.stage_trials
    try:
        return make_strategy(str(kind), block, space=space, seed=seed)
    except ValueError as error:
        raise ValueError(f"inner: {error}") from None


def _shapes_of(split: Split) -> str:
    return " with ".join(f"{pool.shape.name} {role}" for role, pool in split.pools.items())


def _said(options: PdSplitOptions) -> str:
    return ", ".join(
        f"{name} ({one.devices} devices, {', '.join(one.roles) or 'no role'})"
        for name, one in options.shapes.items()
    )
