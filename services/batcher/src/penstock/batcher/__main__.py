"""`python -m penstock.batcher` starts the service."""

from __future__ import annotations

from penstock.batcher.build import NAME, build
from penstock.batcher.settings import BatcherSettings
from penstock.hosting.life import run_service


def main() -> None:
    run_service(NAME, BatcherSettings, build, "Close the batch now, or wait? Who goes first?")


if __name__ == "__main__":
    main()
