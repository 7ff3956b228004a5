"""The assembly of the console: connections to the services, and its pages on one HTTP port."""

from __future__ import annotations

from penstock.console.guard import App, Guard, is_loopback
from penstock.console.late_app import LateApp
from penstock.console.service_clients import ServiceClients
from penstock.console.settings import ConsoleSettings
from penstock.hosting.assembly import Assembly
from penstock.hosting.http_port import HttpPort
from penstock.hosting.outside import Outside
from penstock.hosting.service import Service
from penstock.service.program import CannotStart

NAME = "console"


def build(settings: ConsoleSettings, outside: Outside) -> Service:
    """Make the console from its settings and the outside world.

    Raises:
        CannotStart: it would listen beyond loopback without a token.
    """
    host = settings.listen.rpartition(":")[0]
    if not is_loopback(host) and not settings.console_token:
        raise CannotStart(
            f"{settings.listen} is not on loopback; set PENSTOCK_CONSOLE_TOKEN to let others "
            "see the console"
        )
    clients = ServiceClients(settings, outside)

    def pages() -> App:
        from penstock.console.page import app_of  # with NiceGUI

        return app_of(clients, settings.refresh_s)

    guarded = Guard(LateApp(pages), settings.console_token)
    port = HttpPort(settings.listen, guarded, tls=settings.tls)
    return Service(NAME, [port], close=clients.close)


ASSEMBLY = Assembly(NAME, ConsoleSettings, build, "What is going on, at a glance?")
