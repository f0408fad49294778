"""The reference of all commands, from their own parsers: ``python -m tuner.cli._reference``."""

from __future__ import annotations

import argparse
import os

from tuner.cli._main import _parser

_WIDTH = "100"
_HEAD = """# Commands

What `python -m tuner COMMAND --help` says, all in one place.

<!-- generated: python -m tuner.cli._reference > docs/cli.md -->
"""


def reference() -> str:
    """All commands with their flags, as Markdown."""
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ.update(COLUMNS=_WIDTH, NO_COLOR="1")
    try:
        return _HEAD + "".join(_section(*one) for one in _commands(_parser(), ""))
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _commands(parser: argparse.ArgumentParser, name: str) -> list[tuple[str, str]]:
    """Name and help text of a command and those below it."""
    found = [(name, parser.format_help())] if name else []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                found += _commands(below, f"{name} {word}".strip())
    return found


def _section(name: str, text: str) -> str:
    return f"\n## {name}\n\n```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    print(reference(), end="")
