"""msModelSlim's command line, its garbage collections freed from what imports have made.

Not imported: msModelSlim's own interpreter runs this file in place of its console script, with the
same arguments. It uses only the standard library.

msModelSlim collects garbage after each processor of each block, so that a device's memory is free
at once. Every time Python visits all the objects that imports have made and nothing will ever
free, over half a million of them, which takes a fifth of a second: most of the time of a small
model's quantization, more than a minute of a large one's. So what will be imported anyway is
imported first, with no collections meanwhile, and set aside by ``gc.freeze``. Collections then
find the same garbage among what was made since.
"""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

_COMMANDS = {
    "quant": "msmodelslim.cli.naive_quantization.__main__",
    "analyze": "msmodelslim.cli.analysis.__main__",
}
_ADAPTERS = "msmodelslim.model_adapter.plugins"


def import_and_freeze(arguments: list[str]) -> None:
    """Import what ``arguments`` will need. What cannot be imported is msModelSlim's to report, once
    it needs it."""
    gc.disable()
    try:
        with suppress(Exception):
            import_module(_COMMANDS[arguments[0]])
            _import_adapter(arguments[arguments.index("--model_type") + 1])
    finally:
        gc.freeze()
        gc.enable()


def _import_adapter(model_type: str) -> None:
    """Import the module that its loader would, and with it transformers."""
    from importlib.metadata import entry_points

    loaders = {point.name: point for point in entry_points(group=_ADAPTERS)}
    loader = loaders.get(model_type, loaders["default"]).load()
    import_module(loader.ADAPTER_CLASS_PATH.partition(":")[0])


if __name__ in ("__main__", "__mp_main__"):  # the latter in the processes it spawns for devices
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]
    import_and_freeze(sys.argv[1:])

if __name__ == "__main__":
    sys.argv[0] = "msmodelslim"
    sys.exit(import_module("msmodelslim.cli.__main__").main())
