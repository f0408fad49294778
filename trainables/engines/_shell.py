"""An environment in a POSIX shell script. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def shell_environment(
    env: Mapping[str, str],
    unset: Iterable[str] = (),
    *,
    word: Callable[[str], str] = shlex.quote,
) -> tuple[list[str], list[str]]:
    """How a script gives a command its variables.

    A shell takes letters of ASCII, digits and underscores in names; others reach a command through
    ``env``.

    Args:
        env: Name to value.
        unset: Variables that the command must not have.
        word: Writes a value as a word of the script.

    Returns:
        Lines that go before the command, and words, not yet quoted, that go before it on its own
        line.
    """
    lines, words = [], []
    for name in unset:
        if _IDENTIFIER.fullmatch(name):
            lines.append(f"unset {name}")
        else:
            words += ["-u", name]
    assigned = []
    for name, value in env.items():
        if _IDENTIFIER.fullmatch(name):
            lines.append(f"export {name}={word(value)}")
        else:
            assigned.append(f"{name}={value}")
    odd = [*words, *assigned]
    return lines, ["env", *words, "--", *assigned] if odd else []
