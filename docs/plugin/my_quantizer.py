"""quantizer: {type: my-quantizer}: W8A8 whose weights somebody else computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.quantization import Practice, Quantized, QuantizeJob, Quantizer, make_quantizer

Reference: Any = type(make_quantizer({"type": "torch_reference"}))


class MyQuantizer(Quantizer):
    Options = Reference.Options

    def versions(self) -> dict[str, str]:
        return {"my-tool": "1.0"}

    def problems(self, practice: Practice) -> list[str]:
        """What of a practice this tool cannot do, before anything is started."""
        return list(self._tool.problems(practice))

    def quantize(self, job: QuantizeJob, folder: Path) -> Quantized:
        """Write weights and config.json; what is returned is compared with the tensors written."""
        quantized: Quantized = self._tool.quantize(job, folder)
        return quantized

    @property
    def _tool(self) -> Quantizer:
        return make_quantizer({"type": "torch_reference"})
