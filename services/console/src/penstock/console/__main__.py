"""The hall: configuration, sources, page. `python -m penstock.console`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from nicegui import ui
from penstock.console.guard import Guard, is_loopback
from penstock.console.page import add_pages
from penstock.console.settings import ConsoleSettings
from penstock.console.sources import Sources
from penstock.service.program import CannotStart, run

log = logging.getLogger(__name__)


async def serve(settings: ConsoleSettings) -> None:
    """Serve until told to stop."""
    host, _, port = settings.listen.rpartition(":")
    if not is_loopback(host) and not settings.console_token:
        raise CannotStart(
            f"{settings.listen} is not on loopback; set PENSTOCK_CONSOLE_TOKEN to let others "
            "see the console"
        )
    listener = _bind(host.strip("[]"), port)
    sources = Sources(settings)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_pages(sources, settings.refresh_s)
    ui.run_with(app, title="Penstock", dark=None, show_welcome_message=False)
    guarded = Guard(app, settings.console_token)
    config = uvicorn.Config(guarded, log_level="warning", timeout_graceful_shutdown=1)
    log.info("console on http://%s:%s/", host, listener.getsockname()[1])
    server = _Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, setattr, server, "should_exit", True)
    try:
        await server.serve(sockets=[listener])
    finally:
        await sources.close()


class _Server(uvicorn.Server):
    """Leaves signals to `serve`: uvicorn's own handlers raise them again after the end, and a clean
    stop would look like a crash.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: str) -> socket.socket:
    try:
        return socket.create_server((host, int(port)))
    except (OSError, ValueError):
        raise CannotStart(
            f"cannot listen on {host}:{port}: it is in use or no address; set PENSTOCK_LISTEN"
        ) from None


def main() -> None:
    run("console", ConsoleSettings, serve, "A read-only page over the services.")


if __name__ == "__main__":
    main()
