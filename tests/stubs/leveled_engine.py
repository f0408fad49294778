"""The stub engine for a model whose sums go wrong unless enough decoder blocks are in float.

``STUB_LEVEL`` blocks are enough. Which are in float is read from what msModelSlim wrote: only the
standard library is needed, so the environment of the original tool can run it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import openai_engine

_BLOCK = re.compile(r"model\.layers\.(\d+)\.")


def float_blocks(model: Path) -> int:
    """Decoder blocks without a quantized tensor, by the description beside the weights."""
    (description,) = model.glob("quant_model_description*.json")
    blocks: dict[str, bool] = {}
    for name, kind in json.loads(description.read_text()).items():
        if found := _BLOCK.match(name):
            blocks[found[1]] = blocks.get(found[1], True) and kind == "FLOAT"
    return sum(blocks.values())


if __name__ == "__main__":
    folder = Path(sys.argv[sys.argv.index("--model") + 1])
    enough = float_blocks(folder) >= int(os.environ["STUB_LEVEL"])
    os.environ["STUB_CORRECT"] = "1" if enough else "0.5"
    openai_engine.main()
