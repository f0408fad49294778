"""Takes vLLM-Ascend's proxy's command line, and routes as our own router does."""

from __future__ import annotations

import argparse

from aiohttp import web

from trainables.disaggregated._router_app import Routing, Settings
from trainables.disaggregated._router_protocol import METASERVER


async def _ready(request: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--workers", type=int, default=1)
    for side in ("prefiller", "decoder"):
        parser.add_argument(f"--{side}-hosts", nargs="+")
        parser.add_argument(f"--{side}-ports", nargs="+")
    given = parser.parse_args()
    prefill, decode = (
        [f"http://{host}:{port}" for host, port in zip(*one, strict=True)]
        for one in (
            (given.prefiller_hosts, given.prefiller_ports),
            (given.decoder_hosts, given.decoder_ports),
        )
    )
    own = f"http://{given.host}:{given.port}{METASERVER}"
    app = Routing(Settings(prefill, decode, [], "layerwise" in __file__, own)).application()
    app.router.add_get("/healthcheck", _ready)
    web.run_app(app, host=given.host, port=given.port, access_log=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
