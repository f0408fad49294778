"""Command lines with values that are only known where they are deployed. Pure.

Such a value is a *slot* in a command: ``@@NAME@@``. A shell script takes it from a variable, a
Kubernetes manifest from a variable of the container.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from trainables.engines import Launch
from trainables.engines._shell import shell_environment

_SLOT = re.compile(r"@@(\w+)@@", re.ASCII)


def slot(name: str) -> str:
    """What stands for a value until it is known."""
    return f"@@{name}@@"


def slots(launch: Launch) -> list[str]:
    """The names of all slots of a command and its environment, in order."""
    words = [*launch.argv, *launch.env.values(), str(launch.cwd or "")]
    return list(dict.fromkeys(name for word in words for name in _SLOT.findall(word)))


def shell_word(word: str) -> str:
    """A word of a shell script: slots are variables, and all else is what it looks like."""
    literal = True
    parts = []
    for part in _SLOT.split(word):
        if not literal:
            parts.append(f'"${{{part}}}"')
        elif part:
            parts.append(shlex.quote(part))
        literal = not literal
    return "".join(parts) or "''"


def shell_lines(launch: Launch) -> list[str]:
    """Lines of a POSIX shell script that do what a launch says, the command at the end."""
    variables, words = shell_environment(launch.env, launch.unset, word=shell_word)
    return [
        *(f"# {' '.join(note.split())}" for note in launch.notes),
        *variables,
        *([f"cd {shell_word(str(launch.cwd))}"] if launch.cwd else []),
        _wrapped([*words, *launch.argv]),
    ]


def kubernetes_word(word: str, known: Mapping[str, str]) -> str:
    """A word of a container's command or environment, in which ``$(NAME)`` is a variable.

    Args:
        known: Slot to what replaces it, such as ``$(POD_IP)``.
    """
    parts = _SLOT.split(word)
    return "".join(
        known[part] if number % 2 else part.replace("$", "$$") for number, part in enumerate(parts)
    )


def _wrapped(argv: Sequence[str]) -> str:
    """A command with every flag on a line of its own."""
    lines = [["exec"]]
    for number, word in enumerate(argv):
        if number and word.startswith("-"):
            lines.append([])
        lines[-1].append(shell_word(word))
    return " \\\n  ".join(" ".join(line) for line in lines)
