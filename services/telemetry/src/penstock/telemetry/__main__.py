"""`python -m penstock.telemetry`."""

from __future__ import annotations

from penstock.hosting.life import run_service
from penstock.telemetry.build import NAME, build
from penstock.telemetry.settings import TelemetrySettings


def main() -> None:
    run_service(NAME, TelemetrySettings, build, "What happened, what did it cost, is it normal?")


if __name__ == "__main__":
    main()
