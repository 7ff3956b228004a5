"""`python -m penstock.limiter`."""

from __future__ import annotations

from penstock.hosting.life import run_service
from penstock.limiter.build import NAME, build
from penstock.limiter.settings import LimiterSettings


def main() -> None:
    run_service(NAME, LimiterSettings, build, "May this caller spend this now?")


if __name__ == "__main__":
    main()
