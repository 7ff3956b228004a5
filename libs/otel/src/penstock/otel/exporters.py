"""The exporters of a process: one for each receiver, shared by all services that export to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.service.tls_files import TlsSource

if TYPE_CHECKING:
    from penstock.otel.export import Exporter


class Exporters:
    """Owner: whoever assembles the process's services; the last service to leave an exporter ends
    it.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, float, TlsSource | None], Exporter] = {}

    def to(self, endpoint: str, interval_s: float, tls: TlsSource | None) -> Exporter:
        """The exporter to a receiver; see Exporter. A service with a certificate of its own has an
        exporter of its own.
        """
        # The SDK is loaded only where something is exported.
        from penstock.otel.export import Exporter

        key = (endpoint, interval_s, tls)
        exporter = self._made.get(key)
        if exporter is None or exporter.is_ending:
            exporter = self._made[key] = Exporter(endpoint, interval_s, tls)
        return exporter
