"""Devices as msModelSlim's command line names them: ``npu``, ``npu:0,1``, ``cpu``."""

from __future__ import annotations

from dataclasses import dataclass

_KINDS = ("npu", "cpu")


@dataclass(frozen=True)
class Device:
    """One kind of processor, and which of them.

    Attributes:
        kind: ``npu`` or ``cpu``.
        indices: Numbers of the devices in the order given; None leaves the choice to the tool.
    """

    kind: str
    indices: tuple[int, ...] | None = None

    def __str__(self) -> str:
        chosen = "" if self.indices is None else ":" + ",".join(map(str, self.indices))
        return f"{self.kind}{chosen}"


def parse_device(text: str) -> Device:
    """The device that ``text`` names.

    Blanks and empty items between commas do not matter, upper case does, as for msModelSlim.

    Raises:
        ValueError: It names none; the message says why.
    """
    kind, _, listed = text.strip().partition(":")
    kind, listed = kind.strip(), listed.strip()
    if kind not in _KINDS:
        raise ValueError(f"{text!r} names no device: msModelSlim knows npu and cpu, in lower case")
    if not listed:
        return Device(kind)
    items = [item.strip() for item in listed.split(",") if item.strip()]
    try:
        indices = tuple(int(item) for item in items)
    except ValueError:
        message = f"{text!r} must list device numbers after the colon, such as npu:0,1"
        raise ValueError(message) from None
    if not indices:
        raise ValueError(f"{text!r} lists no device after the colon")
    if min(indices) < 0:
        raise ValueError(f"{text!r} has a negative device number; the first device is 0")
    if len(set(indices)) < len(indices):
        raise ValueError(f"{text!r} names a device twice")
    if kind == "cpu" and len(indices) > 1:
        raise ValueError(f"{text!r} names several processors; msModelSlim quantizes on one: cpu")
    return Device(kind, indices)
