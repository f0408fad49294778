"""``latency: {type: operators}``: composed from tables of measured operators.

An iteration takes the sum of its operators, which run one after the other: embedding, for each
transformer block its norms, projections, attention and MLP or experts, the last norm, logits and
sampling, and the ranks' communication. What the tables do not say is stated where it is decided:
several prompts in one batch (``_operators_attention``), unequal contexts (``_operators_flash``,
``_operators_skew``), padding (``_operators_graphs``), routing (``_operators_moe``).

The tables were measured without graphs or compilation, kernel by kernel. With them kernels of
norms, activations and rotary embedding are fused, which makes an iteration shorter; gaps between
kernels are not in the tables at all and can be added (``kernel_gap_us``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat

from trainables._trial import Json
from trainables.latency._devices import Device, find_device
from trainables.latency._devices_link import Link
from trainables.latency._model import LatencyError, LatencySource, Served, register_latency_model
from trainables.latency._operators_attention import AttentionGrid
from trainables.latency._operators_comm import ACTIVATION_BYTES, communication
from trainables.latency._operators_curve import measured_curve, weighted_sum
from trainables.latency._operators_flash import alone, make_spread
from trainables.latency._operators_graphs import captured_sizes
from trainables.latency._operators_layers import (
    Blocks,
    has_experts,
    has_mlp,
    model_blocks,
    runs_per_iteration,
    same_on_every_rank,
    text_config,
)
from trainables.latency._operators_model import Composition, OperatorLatency
from trainables.latency._operators_moe import ExpertTable, distinct_experts
from trainables.latency._operators_skew import Skew
from trainables.latency._operators_tables import Tables, degrees, read_meta, read_tables


class Interconnect(BaseModel):
    """Between the devices of one instance.

    Attributes:
        gb_per_s: Bandwidth of one device in one direction, in 1e9 bytes per second.
        latency_us: Time of a collective of a few bytes, in microseconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gb_per_s: float = Field(gt=0)
    latency_us: float = Field(ge=0)


class OperatorOptions(BaseModel):
    """The ``latency`` block of ``operators``.

    Attributes:
        path: Folder with ``meta.yaml`` and ``tp<N>/``.
        interconnect: Between devices; by default that of the device the tables were measured on.
        skew: Whether unequal contexts are corrected for: as the kernel works where that is known,
            else as ``skew_fit.csv`` says; ``auto``: unless ``meta.yaml`` calls the fit disabled.
        runs: Operator to how often it runs in an iteration, where its name does not tell.
        kernel_gap_us: From the end of a kernel to the start of the next one, in microseconds, which
            tables of kernels do not have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["operators"] = "operators"
    path: Path
    interconnect: Interconnect | None = None
    skew: bool | Literal["auto"] = "auto"
    runs: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    kernel_gap_us: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class Measured:
    """What was measured for one tensor-parallel degree.

    Attributes:
        whole_experts: Whether the table of experts is of a rank that has all of every expert.
        token_us: Of attention, see :func:`alone`.
    """

    tables: Tables
    whole_experts: bool
    attention: AttentionGrid
    skew: Skew | None
    token_us: float | None


@register_latency_model("operators")
class OperatorSource(LatencySource):
    """Latency from a folder of tables."""

    Options = OperatorOptions
    options: OperatorOptions

    def problems(self) -> list[tuple[str, str]]:
        path = self.options.path
        if not path.is_dir():
            return [("path", f"{path} is no folder of operator tables")]
        if not degrees(path):
            return [("path", f"{path} has no tp<N> folder with tables")]
        return []

    def identity(self) -> Json:
        options = self.options.model_dump(mode="json", exclude={"path"})
        options["tables"] = _digest(self.options.path)
        return options

    def memory_bytes(self) -> int | None:
        return None if self._device is None else self._device.memory_bytes

    def model(self, served: Served) -> OperatorLatency:
        measured = self._measured(served.tensor_parallel)
        tables = measured.tables
        blocks = model_blocks(served.config)
        _check_model(self._meta, served)
        _check_cover(tables, blocks)
        link = self._link(served)
        moe_table = bool(tables.moe)
        given = self._runs(tables)
        runs = runs_per_iteration(tables.dense, blocks, moe_table=moe_table, given=given)
        gap = self.options.kernel_gap_us
        gaps = gap * (sum(runs.values()) + blocks.count + blocks.expert_blocks * moe_table)
        dense = weighted_sum(
            (measured_curve(points), runs[name]) for name, points in tables.dense.items()
        )
        experts = _experts(measured, blocks, served) if moe_table else _nothing
        comm = communication(blocks, served, link)
        rows = weighted_sum(
            (measured_curve(points), given.get(name, 1.0))
            for name, points in tables.per_sequence.items()
        )
        gathered = blocks.vocabulary * ACTIVATION_BYTES
        return OperatorLatency(
            Composition(
                lambda tokens: dense(tokens) + experts(tokens) + comm(tokens) + gaps,
                lambda count: rows(count) + link.gather(count * gathered, served.tensor_parallel),
                measured.attention,
                blocks.count,
                measured.skew,
                captured_sizes(served),
                make_spread(self._device, served, measured.token_us) if self._corrects else None,
            )
        )

    @cached_property
    def _meta(self) -> dict[str, Any]:
        return read_meta(self.options.path)

    @cached_property
    def _device(self) -> Device | None:
        return find_device(self._meta.get("gpu"), self._meta.get("hardware"))

    @property
    def _corrects(self) -> bool:
        wanted = self.options.skew
        return bool(self._fit.get("enabled", True)) if wanted == "auto" else wanted

    @property
    def _fit(self) -> dict[str, Any]:
        return self._meta.get("skew_fit") or {}

    @cached_property
    def _known(self) -> dict[int, Measured]:
        return {}

    def _measured(self, degree: int) -> Measured:
        """Read once: a search asks for many models of the same tables."""
        if degree not in self._known:
            tables, whole = self._tables(degree)
            grid = AttentionGrid(tables.attention)
            skew, token_us = self._skew(tables, degree), alone(tables.attention)
            self._known[degree] = Measured(tables, whole, grid, skew, token_us)
        return self._known[degree]

    def _tables(self, degree: int) -> tuple[Tables, bool]:
        """Of that degree, completed from those of a single rank; and whether the experts' are of
        a rank that has all of every expert."""
        path = self.options.path
        if not path.is_dir():
            raise LatencyError(f"latency.path: {path} is no folder of operator tables")
        known = degrees(path)
        if degree not in known:
            have = ", ".join(map(str, known)) or "none"
            raise LatencyError(
                f"{path} has no tables for tensor parallel {degree}, it has: {have}; "
                "profile that degree or use one that is there"
            )
        tables = read_tables(path / f"tp{degree}")
        if degree == 1 or 1 not in known:
            return tables, degree == 1
        return _completed(tables, read_tables(path / "tp1"))

    def _runs(self, tables: Tables) -> Mapping[str, float]:
        known = [*tables.dense, *tables.per_sequence]
        unknown = [name for name in self.options.runs if name not in known]
        if unknown:
            raise LatencyError(
                f"latency.runs names {', '.join(unknown)}, which the tables do not have; "
                f"they have {', '.join(known)}"
            )
        return self.options.runs

    def _link(self, served: Served) -> Link:
        given = self.options.interconnect
        if given is not None:
            return Link(given.gb_per_s, given.latency_us)
        if self._device is not None:
            return self._device.link
        ranks = max(served.tensor_parallel, served.expert_parallel, served.pipeline_parallel)
        if ranks > 1:
            raise LatencyError(
                "latency.interconnect is needed for more than one rank: what connects devices of "
                f"{self._meta.get('hardware', 'this hardware')!r} is not known; give gb_per_s and "
                "latency_us"
            )
        return Link(1.0, 0.0)

    def _skew(self, tables: Tables, degree: int) -> Skew | None:
        if not self._corrects or not tables.skew:
            return None
        per_degree = self._fit.get("per_tp") or {}
        summary = per_degree.get(degree) or per_degree.get(str(degree)) or {}
        return Skew(tables.skew, summary.get("alpha_default"))


def _completed(tables: Tables, single: Tables) -> tuple[Tables, bool]:
    missing = {name: points for name, points in single.dense.items() if name not in tables.dense}
    shared = [name for name in missing if not same_on_every_rank(name)]
    rows = {
        name: points
        for name, points in single.per_sequence.items()
        if name not in tables.per_sequence
    }
    shared += [name for name in rows if not same_on_every_rank(name)]
    if shared:
        raise LatencyError(
            f"{tables.folder} lacks {', '.join(shared)}, which ranks share, so that the times of "
            "one rank do not hold; profile them for this degree"
        )
    whole = not tables.moe or tables.moe == single.moe
    return (
        Tables(
            tables.folder,
            {**tables.dense, **missing},
            {**tables.per_sequence, **rows},
            tables.attention,
            single.moe if whole else tables.moe,
            tables.skew,
        ),
        whole,
    )


def _check_cover(tables: Tables, blocks: Blocks) -> None:
    if blocks.experts and not tables.moe and not has_experts(tables.dense):
        raise LatencyError(
            f"the model has {blocks.experts} experts, but {tables.folder} has no moe.csv; "
            "profile the block of experts"
        )
    if blocks.expert_blocks < blocks.count and not has_mlp(tables.dense):
        raise LatencyError(
            f"the model has dense MLPs, but dense.csv in {tables.folder} has none of them, only "
            f"{', '.join(tables.dense)}"
        )


def _check_model(meta: Mapping[str, Any], served: Served) -> None:
    """Profilers of single devices divide a model's sizes by the degree they stand for."""
    overrides = (meta.get("engine_effective") or {}).get("hf_overrides") or {}
    profiled = overrides.get("num_attention_heads")
    heads = text_config(served.config).get("num_attention_heads")
    ranks = meta.get("tp_degrees") or [1]
    if not profiled or not heads or any(profiled * rank == heads for rank in ranks):
        return
    raise LatencyError(
        f"the tables are of {meta.get('model', 'another model')} with {profiled * max(ranks)} "
        f"attention heads, the model served has {heads}; use tables of this model"
    )


def _nothing(tokens: int) -> float:
    return 0.0


def _experts(measured: Measured, blocks: Blocks, served: Served) -> Callable[[int], float]:
    """Microseconds of all blocks of experts over the tokens of this instance.

    Instances that share experts send each other their tokens: all of them are taken to have the
    same number.
    """
    table = ExpertTable(measured.tables.moe)
    ranks = max(served.tensor_parallel, served.expert_parallel)
    instances = ranks // served.tensor_parallel
    share = ranks if measured.whole_experts else max(ranks // served.tensor_parallel, 1)

    def time(tokens: int) -> float:
        everywhere = tokens * instances
        reached = distinct_experts(everywhere, blocks.top_k, blocks.experts)
        return blocks.expert_blocks * table(everywhere / share, reached / share)

    return time


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("meta.yaml"), *folder.glob("tp*/*.csv")]):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
