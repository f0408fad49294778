"""Devices: what one of them can do at best, and how much of that is reached.

The numbers are data, ``_devices.yaml``, with the source of each.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from trainables.latency._devices_link import Link


class Device(BaseModel):
    """One device as engines count them: a GPU, an NPU die, a CPU socket.

    Attributes:
        name: What it is called in ``latency: {device: ...}``.
        match: Regular expressions of what drivers and profilers call it, without case.
        tflops: Peak of dense matrix products in 1e12 operations per second, by type of the
            factors: ``bf16``, ``fp16``, ``fp8``, ``int8``.
        memory_gb_per_s: Peak bandwidth of its memory, in 1e9 bytes per second.
        memory_gb: Its memory, in 1e9 bytes.
        link_gb_per_s: To other devices of its node, in one direction, in 1e9 bytes per second.
        link_latency_us: Time of a collective of a few bytes, in microseconds.
        compute_efficiency: Share of the peak that large matrix products reach.
        attention_efficiency: Share of the peak that attention of prompts reaches.
        memory_efficiency: Share of the bandwidth that reading weights and KV cache reaches.
        kernel_us: Time of a kernel that has next to nothing to do, in microseconds.
        multiprocessors: Of a GPU on which vLLM's attention is FlashAttention-2; None: it is another
            kernel, or not known.
        attention_blocks: Thread blocks of that kernel, of 80 KiB of shared memory each, that one
            multiprocessor runs at once.
        source: Where the numbers are from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    match: tuple[str, ...] = ()
    tflops: dict[str, PositiveFloat] = Field(min_length=1)
    memory_gb_per_s: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    link_gb_per_s: float = Field(gt=0)
    link_latency_us: float = Field(ge=0)
    compute_efficiency: float = Field(default=0.8, gt=0, le=1.2)
    attention_efficiency: float = Field(default=0.5, gt=0, le=1.2)
    memory_efficiency: float = Field(default=0.85, gt=0, le=1.2)
    kernel_us: float = Field(default=3.0, ge=0)
    multiprocessors: int | None = Field(default=None, gt=0)
    attention_blocks: int = Field(default=1, gt=0)
    source: str

    @property
    def link(self) -> Link:
        return Link(self.link_gb_per_s, self.link_latency_us)

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gb * 1e9)


@cache
def known_devices() -> dict[str, Device]:
    """Devices by name."""
    text = Path(__file__).with_name("_devices.yaml").read_text(encoding="utf-8")
    devices = (Device.model_validate(entry) for entry in yaml.safe_load(text)["devices"])
    return {device.name: device for device in devices}


def find_device(*names: object) -> Device | None:
    """The device that one of these names means; None: it is not known."""
    for name in map(str, filter(None, names)):
        exact = known_devices().get(name)
        if exact is not None:
            return exact
        for device in known_devices().values():
            if any(re.search(pattern, name, re.IGNORECASE) for pattern in device.match):
                return device
    return None
