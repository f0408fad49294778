"""What a trial asks of the cluster, and what the nodes have."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

Strategy: TypeAlias = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
"""How the bundles of one trial are laid on nodes: together or apart, if possible or at any rate."""

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

NODE_ID = "ray.io/node-id"
"""The label by which Ray tells nodes apart."""

_STANDARD = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU", "memory": "memory"}
_DEVICES = ("GPU", "NPU")
_UNIT = 10_000
"""Ray counts resources in units of 0.0001 (``MIN_RESOURCE_GRANULARITY``)."""
_WORD = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_SELECTOR = re.compile(rf"(!?)(?:in\(({_WORD}(?:, ?{_WORD})*)\)|({_WORD}))")
_KEY = re.compile(rf"(?:{_WORD}(?:\.{_WORD})*/)?{_WORD}")


class RequestError(ValueError):
    """A resource request that no cluster could understand."""


@dataclass(frozen=True)
class Bundle:
    """Resources that one node must provide together.

    Attributes:
        resources: Amount by name, positive. ``CPU``, ``GPU``, ``NPU`` count devices, ``memory``
            is bytes, other names are the administrator's.
        labels: Selector by label key: ``v``, ``!v``, ``in(a,b)`` or ``!in(a,b)``.
    """

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's node id.
        address: IP address.
        resources: Total amount by name, whether in use or not.
        labels: Value by label key.
        alive: Dead nodes are never considered.
    """

    id: str
    address: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    alive: bool = True

    def __str__(self) -> str:
        return f"{self.address} ({self.id[:8]})"


@dataclass(frozen=True)
class Placement:
    """What one trial occupies: all of its bundles at once, or it is not started at all.

    Attributes:
        bundles: At least one; what supervises the trial lives in the first.
        strategy: How they are laid on nodes.
        apart: Groups of bundles, by their numbers from 0, of which no two may share a node. Ray
            has no word for that: whoever asks it names nodes for them, see :meth:`on`.
    """

    bundles: tuple[Bundle, ...]
    strategy: Strategy = "PACK"
    apart: tuple[tuple[int, ...], ...] = ()

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Placement:
        bundles = tuple(Bundle(**bundle) for bundle in document["bundles"])
        apart = tuple(tuple(group) for group in document.get("apart", ()))
        return cls(bundles, document["strategy"], apart)

    @property
    def total(self) -> dict[str, float]:
        """Amount by name, all bundles together."""
        amounts: Counter[str] = Counter()
        for bundle in self.bundles:
            amounts.update(bundle.resources)
        return dict(amounts)

    def labelled(self, key: str, selector: str) -> Placement:
        """The same, where each bundle also asks for a label."""
        bundles = (replace(one, labels={**one.labels, key: selector}) for one in self.bundles)
        return replace(self, bundles=tuple(bundles))

    def on(self, nodes: Sequence[str]) -> Placement:
        """The same on these nodes: an id for each bundle, which keeps apart what has to be."""
        bundles = (
            replace(one, labels={**one.labels, NODE_ID: node})
            for one, node in zip(self.bundles, nodes, strict=True)
        )
        return replace(self, bundles=tuple(bundles), apart=())


def parse_bundle(resources: Mapping[str, float], labels: Mapping[str, str] | None = None) -> Bundle:
    """A bundle from what a user wrote, such as ``{CPU: 2, NPU: 1, npu_910b: 1}``.

    Standard names may be written in any case; zero amounts are dropped.

    Raises:
        RequestError: An amount is negative, not finite, below 0.0001 or not a number; a name
            is given twice; devices above one are not whole; nothing is asked for; a selector is
            not in the grammar.
    """
    amounts: dict[str, float] = {}
    for written, amount in resources.items():
        name = _STANDARD.get(written.lower(), written)
        if name in amounts:
            raise RequestError(f"resource {name} is given twice")
        amounts[name] = _amount(name, amount)
    amounts = {name: amount for name, amount in amounts.items() if amount > 0}
    if not amounts:
        raise RequestError("a trial must ask for some resource, such as CPU: 1")
    for key, selector in (labels or {}).items():
        if not _KEY.fullmatch(key):
            raise RequestError(f"{key!r} is not a label key such as pool or example.com/pool")
        _parse_selector(key, selector)
    return Bundle(amounts, dict(labels or {}))


def _amount(name: str, amount: object) -> float:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise RequestError(f"resource {name} must be a number, not {amount!r}")
    if not math.isfinite(amount) or amount < 0:
        raise RequestError(f"resource {name} must be 0 or more, not {amount!r}")
    if amount > 0 and units(amount) == 0:
        raise RequestError(f"resource {name} must be at least 0.0001, not {amount!r}")
    if name in _DEVICES and amount > 1 and amount != int(amount):
        raise RequestError(f"resource {name} must be whole above 1, not {amount!r}")
    return float(amount)


def _parse_selector(key: str, selector: object) -> tuple[bool, frozenset[str]]:
    """Whether the values are wanted (else unwanted), and the values."""
    parsed = _parsed(selector) if isinstance(selector, str) else None
    if parsed is None:
        raise RequestError(
            f"label {key}: {selector!r} is not a selector; write v, !v, in(a,b) or !in(a,b)"
        )
    return parsed


@lru_cache(maxsize=1024)
def _parsed(selector: str) -> tuple[bool, frozenset[str]] | None:
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        return None
    negation, several, one = match.groups()
    values = re.split(", ?", several) if several else [one]
    return not negation, frozenset(values)


def selects(selector: str, value: str | None) -> bool:
    """Whether a node whose label has ``value`` (``None``: lacks the label) passes ``selector``.

    As in Ray, a node without the label passes every negation. Raises :class:`RequestError` when
    the selector is not in the grammar.
    """
    wanted, values = _parse_selector("", selector)
    return (value in values) == wanted


def units(amount: float) -> int:
    """``amount`` in the whole units Ray counts in."""
    return round(amount * _UNIT)


@dataclass(frozen=True)
class Need:
    """What one node must provide: a bundle, or all bundles of a trial that must share a node.

    Attributes:
        units: Positive amounts by name, in Ray's units.
        selectors: Label keys and selectors that must all hold; a key may occur again.
    """

    units: Mapping[str, int]
    selectors: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, bundles: Iterable[Bundle]) -> Need:
        """All of ``bundles`` on one node."""
        total: Counter[str] = Counter()
        selectors: dict[tuple[str, str], None] = {}
        for bundle in bundles:
            total.update({name: units(amount) for name, amount in bundle.resources.items()})
            selectors.update(dict.fromkeys(bundle.labels.items()))
        return cls(total, tuple(selectors))

    def __str__(self) -> str:
        parts = [f"{name} {amount / _UNIT:g}" for name, amount in self.units.items()]
        return ", ".join(parts + [f"label {key}={text}" for key, text in self.selectors])

    def matches(self, node: Node) -> bool:
        """Whether the labels of ``node`` pass all selectors."""
        return all(selects(text, node.labels.get(key)) for key, text in self.selectors)

    def copies(self, node: Node) -> int:
        """How often this fits the idle ``node``."""
        if not self.matches(node):
            return 0
        return min(
            _times(name, amount, units(node.resources.get(name, 0)))
            for name, amount in self.units.items()
        )


def _times(name: str, amount: int, have: int) -> int:
    """How often ``amount`` is contained in ``have``; a share of a device never spans two."""
    if name in _DEVICES and amount < _UNIT:
        return have // _UNIT * (_UNIT // amount)
    return have // amount
