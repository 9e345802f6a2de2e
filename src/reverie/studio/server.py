"""uvicorn around the application: it listens, tells the engine when it begins to stop, and opens a browser if asked."""

from __future__ import annotations

import socket
import sys
import threading
import webbrowser
from typing import Any

import uvicorn

from reverie.studio import guard
from reverie.studio.app import Settings, create_app
from reverie.studio.engine import Engine


class Server(uvicorn.Server):
    """Streams of events end only when their runs do, so the engine must stop before the connections are waited for."""

    def __init__(self, config: uvicorn.Config, engine: Engine, page: str | None):
        super().__init__(config)
        self.engine, self.page = engine, page

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.page is not None:
            threading.Thread(target=webbrowser.open, args=(self.page,), daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.engine.drain()
        await super().shutdown(sockets)


def run(settings: Settings, port: int, *, browser: bool = False, quiet: bool = False) -> None:
    """Serves until it is told to stop (Ctrl-C, SIGTERM). ValueError if the port cannot be had."""
    listener = _listen(settings.host, port)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    app = create_app(settings)
    if not guard.is_loopback(settings.host) and settings.key is None:
        print(f"reverie: {address} is open to everybody who can reach it; give it a --key.", file=sys.stderr)
    if not quiet:
        print(f"reverie: serving {', '.join(settings.house.models)} at {address} (Ctrl-C ends it)", file=sys.stderr)
    options: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
    config = uvicorn.Config(app, timeout_graceful_shutdown=int(settings.grace) + 5, **options)
    Server(config, app.state.engine, address if browser else None).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host} port {port} ({error.strerror or error}); give another --host or --port."
        ) from error
