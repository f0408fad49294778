"""The library that draws the charts in the browser, as one script."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from cluster import write_atomic
from trainables.models import cache_folder

VEGA_LITE = "6.4"
"""Version of Vega-Lite, of those that vl-convert brings."""

_TIMEOUT = 120.0
_BUNDLE = (
    "import sys, vl_convert; "
    "sys.stdout.buffer.write(vl_convert.javascript_bundle(vl_version=sys.argv[1]).encode())"
)


@lru_cache(maxsize=1)
def charts_code() -> str:
    """Vega, Vega-Lite and Vega-Embed.

    Bundled once for each version, which takes seconds, in a process of its own, so that a fault
    of native code costs a report and no run; then kept in the user's cache.

    Raises:
        ImportError: vl-convert is not installed, or does not work on this machine.
    """
    try:
        name = f"vega-lite-{VEGA_LITE}-{version('vl-convert-python')}.js"
    except PackageNotFoundError as error:
        said = "charts need vl-convert; pip install vl-convert-python"
        raise ImportError(said) from error
    file = cache_folder() / "charts" / name
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        code = _bundled()
    try:
        write_atomic(file, code, mode=0o600)
    except OSError:
        return code
    return code


def _bundled() -> str:
    try:
        made = subprocess.run(
            [sys.executable, "-c", _BUNDLE, VEGA_LITE],
            capture_output=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip().splitlines() or [""]
        raise ImportError(f"vl-convert does not work here: {words[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise ImportError(f"vl-convert has not answered within {_TIMEOUT:.0f} s") from error
    code = made.stdout.decode()
    # What an HTML parser would take for the end of the script.
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
