"""``latency: {type: analytic}``: a roofline of a device and a model's configuration, a first guess.

Each matrix product takes the longer of computing and of reading its weights (Williams, Waterman
and Patterson, Roofline, 2009), attention of prompts and of decodes the longer of computing and of
reading the KV cache, both at a usual share of the device's peaks; kernels in between read and write
their activations; each kernel has a least time; ranks exchange as with ``operators``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from trainables._trial import Json
from trainables.latency._analytic_model import AnalyticLatency
from trainables.latency._analytic_shapes import model_shapes
from trainables.latency._devices import Device, find_device, known_devices
from trainables.latency._model import LatencyError, LatencySource, Served, register_latency_model
from trainables.latency._operators_graphs import captured_sizes

_DECIDE_NOTHING = {"name", "match", "source", "multiprocessors", "attention_blocks"}
"""Fields of a device that do not count here."""


class AnalyticOptions(BaseModel):
    """The ``latency`` block of ``analytic``: a known device, and what is known better about it.

    Attributes:
        device: Its name, or what its driver calls it. Without, ``tflops``, ``memory_gb_per_s`` and
            ``memory_gb`` are needed.

    The others are those of :class:`~trainables.latency._devices.Device`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["analytic"] = "analytic"
    device: str | None = None
    tflops: dict[str, PositiveFloat] | None = Field(default=None, min_length=1)
    memory_gb_per_s: float | None = Field(default=None, gt=0)
    memory_gb: float | None = Field(default=None, gt=0)
    link_gb_per_s: float | None = Field(default=None, gt=0)
    link_latency_us: float | None = Field(default=None, ge=0)
    compute_efficiency: float | None = Field(default=None, gt=0, le=1.2)
    attention_efficiency: float | None = Field(default=None, gt=0, le=1.2)
    memory_efficiency: float | None = Field(default=None, gt=0, le=1.2)
    kernel_us: float | None = Field(default=None, ge=0)


@register_latency_model("analytic")
class AnalyticSource(LatencySource):
    """Latency from a data sheet."""

    Options = AnalyticOptions
    options: AnalyticOptions

    def problems(self) -> list[tuple[str, str]]:
        if self.options.device is None:
            needed = ("tflops", "memory_gb_per_s", "memory_gb")
            return [
                (name, "is needed where no device is named")
                for name in needed
                if getattr(self.options, name) is None
            ]
        if find_device(self.options.device) is None:
            known = ", ".join(sorted(known_devices()))
            said = (
                f"{self.options.device!r} is not known; known: {known}; or leave it out and give "
            )
            return [("device", f"{said}tflops, memory_gb_per_s and memory_gb")]
        return []

    def identity(self) -> Json:
        device: Json = self.device().model_dump(mode="json", exclude=_DECIDE_NOTHING)
        return {"type": "analytic", "device": device}

    def memory_bytes(self) -> int | None:
        return self.device().memory_bytes

    def model(self, served: Served) -> AnalyticLatency:
        device = self.device()
        shapes = model_shapes(served.config, served.tensor_parallel)
        return AnalyticLatency(device, shapes, served, captured_sizes(served))

    def device(self) -> Device:
        """The device, with what is given in place of what is known.

        Raises:
            LatencyError: It is not known, and not described either.
        """
        for path, message in self.problems():
            raise LatencyError(f"latency.{path} {message}")
        given: dict[str, Any] = self.options.model_dump(
            exclude={"type", "device"}, exclude_none=True
        )
        known = find_device(self.options.device)
        if known is not None:
            return known.model_copy(update=given)
        rest = {"name": "given", "source": "given", "link_gb_per_s": 25.0, "link_latency_us": 20.0}
        return Device.model_validate({**rest, **given})
