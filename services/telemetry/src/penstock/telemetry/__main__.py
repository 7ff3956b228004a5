"""`python -m penstock.telemetry`."""

from __future__ import annotations

from penstock.hosting.life import run_service
from penstock.telemetry.build import ASSEMBLY


def main() -> None:
    run_service(ASSEMBLY)


if __name__ == "__main__":
    main()
