"""The token of clusters that are joined: the file where Ray itself looks, kept private."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from cluster._files import write_atomic
from cluster._private_cluster import ClusterError


def token_path(given: Path | None = None) -> Path:
    """Where the token is: ``given``, RAY_AUTH_TOKEN_PATH, or where Ray looks by itself."""
    if given is not None:
        return given.expanduser().absolute()
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return Path(path).absolute()
    return Path.home() / ".ray" / "auth_token"


def node_token(given: Path | None, *, joins: str | None) -> Path:
    """The token file of a node; made when a new cluster needs one and there is none.

    Args:
        given: The user's choice.
        joins: The cluster that wants the token; None for a new one.

    Raises:
        ClusterError: There is none to join with, or others can read it.
    """
    path = token_path(given)
    if not path.exists():
        if joins is not None:
            raise ClusterError(
                f"the token of {joins} is missing: copy it from the head's {path} to the same "
                f"place here, as with `scp -p HEAD:{path} {path}`; it has mode 600"
            )
        _make(path, secrets.token_hex(32))
    _check(path)
    return path


def accept_token(given: Path | None, token: str) -> Path:
    """Put a token that came from another host where this host's nodes look for it.

    Raises:
        ClusterError: It is none, or another token is there already.
    """
    path, token = token_path(given), token.strip()
    if len(token) < 16 or not token.isascii() or len(token.split()) != 1:
        raise ClusterError("what came on the standard input is no token")
    if not path.exists():
        _make(path, token)
    if path.read_text().strip() != token:
        raise ClusterError(
            f"{path} holds the token of another cluster; give this one a file of its own with "
            "--token-file (token_file in a file of hosts), or remove that one"
        )
    _check(path)
    return path


def _make(path: Path, token: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    candidate = path.with_name(f"{path.name}-{os.getpid()}")
    write_atomic(candidate, token, mode=0o600)
    with suppress(FileExistsError):
        path.hardlink_to(candidate)
    candidate.unlink()


def _check(path: Path) -> None:
    found = path.stat()
    if found.st_mode & 0o077:
        raise ClusterError(f"others may read the token in {path}; run: chmod 600 {path}")
