"""A router for prefill, decode and mixed instances that speak OpenAI's protocol.

``python -m trainables.disaggregated.router --port 8000 --prefill URL... --decode URL...`` answers
``/v1/completions`` and ``/v1/chat/completions``, streamed and not, ``/v1/models``, ``/health``
and, with its own counters, ``/metrics``. ``--mixed URL...`` instead of the two balances the load
of instances that do both; with prefill instances alone every answer has one token.

It listens on loopback unless told otherwise, and knows no clients: whoever reaches it may use it.
It ends at SIGTERM and SIGINT.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args
from urllib.parse import urlsplit

from aiohttp import web

from trainables.disaggregated._router_app import Routing, Settings
from trainables.disaggregated._router_pool import LEAST_LOADED, Policy
from trainables.disaggregated._router_protocol import METASERVER

_END_S = 2.0
_FLOWS = ("prefill_first", "decode_first")
_WAITING = 4096
"""Connections the kernel keeps until we accept them: whole benchmarks connect at once."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Route until told to end."""
    given = _parser().parse_args(arguments)
    settings = _settings(given)
    web.run_app(
        Routing(settings).application(),
        host=given.host,
        port=given.port,
        backlog=_WAITING,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_END_S,
        print=lambda _: print(f"routes at {given.host}:{given.port}: {settings}", flush=True),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainables.disaggregated.router")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000)
    for role in ("prefill", "decode", "mixed"):
        add(f"--{role}", type=_url, nargs="+", default=[], metavar="URL", help=f"{role} instances")
    add("--flow", choices=_FLOWS, default=_FLOWS[0], help="whom a request meets first")
    add("--advertise", help="address at which decode instances reach it; by default --host")
    add("--policy", choices=get_args(Policy), default=LEAST_LOADED)
    add("--connect-timeout", type=_seconds, default=10.0, help="seconds")
    add("--silence-timeout", type=_seconds, default=1800.0, help="seconds")
    return parser


def _settings(given: argparse.Namespace) -> Settings:
    if not (given.prefill or given.decode or given.mixed):
        _parser().error("give the instances: --prefill and --decode, or --mixed")
    if given.mixed and (given.prefill or given.decode):
        _parser().error("give either --mixed or --prefill and --decode")
    decode_first = given.flow == "decode_first"
    if decode_first and not (given.prefill and given.decode):
        _parser().error("--flow decode_first needs --prefill and --decode")
    host = given.advertise or given.host
    if decode_first and host in ("0.0.0.0", "::"):
        _parser().error("--flow decode_first needs --advertise, or a --host instances can call")
    shown = f"[{host}]" if ":" in host else host
    return Settings(
        given.prefill,
        given.decode,
        given.mixed,
        decode_first,
        f"http://{shown}:{given.port}{METASERVER}",
        given.policy,
        given.connect_timeout,
        given.silence_timeout,
    )


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port
    except ValueError:
        fine = False
    if not fine or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form http://host:port")
    return text.rstrip("/")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return seconds


if __name__ == "__main__":
    main()
